// Writes the core and the runtime with mutants in them to build/mutants: `node test/native/mutants.mjs`.
//
// Each mutant of native/model/mutants.json is one argument of the core that is broken on purpose; those of the runtime are in
// runtime-mutants.mjs. Here it is a change of the source: a piece of text that occurs exactly once, and what it becomes, where MUTANT(NAME) is true while that mutant is
// switched on. So the shipped source knows nothing of mutants, and one program runs all of them.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RUNTIME_EDITS, RUNTIME_NOT_HUNTED } from './runtime-mutants.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const output = join(root, 'build/mutants');

/** Mutants of the core that are not hunted: they cost a wake-up at most, or are rarer than what a run of CI has schedules for. */
const NOT_HUNTED = {
  KEEP_POKED_SWALLOWS: 'who settles a shared grant pokes the next one, whatever a release saw',
  POKE_FIRST_ONLY: 'the first one pokes the next when it settles, one after another',
  READER_NOT_ELIGIBLE: 'the waiter ahead pokes it when it settles, withdraws, dies or is passed over',
  REBUILD_DROPS_DOORBELL: 'the same rebuild puts it back: poke_again() rings for every waiter that was poked',
  BIT_CLEARED_LATE: 'the processes of the simulation are so few that each turn asks about all of them',
  CLEARED_EARLY:
    'a rebuild that gives up for want of memory is not simulated, and any other leaves a dead owner',
  CORRUPT_WAKES_ONE: 'no content of the simulation is corrupt: the model finds it',
  CURSOR_STARVED:
    'whoever waits wants all that are in its way, as few as they are here: the cursor finds nobody else',
  PASS_ONE_ALONE: 'costs time alone: each further wait of a stopped process is passed over two ticks later',
  NO_MUTEX: 'NOT_RETAKEN breaks the same at the one place where another thread gets in between',
  S5_BEFORE_S4:
    'V3 looks at the storage: what a dead thief has by one that the gate does not name yet is no hold',
  UPGRADE_YOUNG:
    'needs a death in the latch while a reader, a writer and an upgrader are there: upgrade_test.cc finds it',
  UNDO_WITHOUT_R3:
    'needs four actors to meet at exact steps, once in some millions of schedules: the model finds it',
};

const EDITS = {
  // Those whose names begin with CYCLE_ are hunted in circles (sim_circles.h).
  'deadlock.h': [
    [
      'check_processes(latched, suspects.all);\n  // A slot that was',
      'if (MUTANT(CYCLE_OF_THE_DEAD)) return true;\n  check_processes(latched, suspects.all);\n  // A slot that was',
    ],
    [
      'if (!certain && (flags & kSlotThrows) == 0) continue;',
      'if (!certain && (flags & kSlotThrows) == 0 && !MUTANT(CYCLE_UNASKED)) continue;',
    ],
    [
      'const bool ends = (flags & kSlotEnds) != 0;',
      'const bool ends = (flags & kSlotEnds) != 0 && !MUTANT(CYCLE_ENDS_TOO);',
    ],
    [
      '(ends == victim_ends ? wait.age < victim->age : victim_ends);',
      '(ends == victim_ends ? (wait.age < victim->age) != MUTANT(CYCLE_ELDEST) : victim_ends);',
    ],
    ['if (!is_new) return;', 'if (!is_new && !MUTANT(CYCLE_TOLD_AGAIN)) return;'],
    [
      'for (const uint32_t n : cycle.waits) {\n    const Slot<P>& member',
      'if (MUTANT(CYCLE_UNCONFIRMED) && cycle.waits.empty()) infos->emplace_back();\n  for (const uint32_t n : cycle.waits) {\n    const Slot<P>& member',
    ],
  ],
  'wait_graph.h': [
    ['(certain && !waits_[next].blocks))', '(certain && !waits_[next].blocks && !MUTANT(CYCLE_UNCERTAIN)))'],
    ['if (ahead_[n] != n) visit(', 'if (ahead_[n] != n && !MUTANT(CYCLE_QUEUE_UNSEEN)) visit('],
    [
      'if (blocked != blocked_.end()) owners_',
      'if (blocked != blocked_.end() && !MUTANT(CYCLE_BLOCKED_UNSEEN)) owners_',
    ],
  ],
  'words.h': [
    ['constexpr bool refers(uint64_t word) {', 'inline bool refers(uint64_t word) {'],
    [
      'phase_of(word) <= Phase::kStale) ||',
      'phase_of(word) <= (MUTANT(STALE_NOT_REFERRING) ? Phase::kReleasing : Phase::kStale)) ||',
    ],
  ],
  'protocol.h': [
    [
      'if (epoch_of(entry.gate.load(std::memory_order_seq_cst)) != epoch_of(gate)) {',
      'if (!MUTANT(A3_SKIPPED) && epoch_of(entry.gate.load(std::memory_order_seq_cst)) != epoch_of(gate)) {',
    ],
    [
      'if (!slot.word.compare_exchange_strong(expected,',
      `if (MUTANT(A5_STORE)) {
      slot.word.store(with_phase(trying, Phase::kHeld), std::memory_order_seq_cst);
    } else if (!slot.word.compare_exchange_strong(expected,`,
    ],
    [
      `if (tag_of(expected) != ref.tag) return Try::kCorrupt;  // taken for dead: the storage may be another lock's by now
      P::unlock(&storage->rwlock);
      if (!ok(release_duty(ref))) return Try::kOwing;`,
      `if (!MUTANT(STALE_NOT_UNDONE)) P::unlock(&storage->rwlock);
      if (MUTANT(UNDO_WITHOUT_R3)) {
        become_idle(ref, std::memory_order_release);
      } else if (!ok(release_duty(ref))) {
        return Try::kOwing;
      }`,
    ],
    [
      `*token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
    if (is_held(slot.word.load(std::memory_order_relaxed))) {`,
      `if (MUTANT(TOKEN_STORE)) {
      *token = entry.token.load(std::memory_order_relaxed) + 1;
      entry.token.store(*token, std::memory_order_relaxed);
    } else {
      *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
    }
    if (MUTANT(A6_SKIPPED) || is_held(slot.word.load(std::memory_order_relaxed))) {`,
    ],
    [
      `  P::fence_after_unlock();
`,
      `  if (MUTANT(R4_BEFORE_R3)) become_idle(ref, std::memory_order_release);
  P::fence_after_unlock();
`,
    ],
    [
      '} while (!ref.slot->word.compare_exchange_weak(held, with_phase(held, Phase::kReleasing),',
      `    if (MUTANT(R1_STORE)) {
      ref.slot->word.store(with_phase(held, Phase::kReleasing), std::memory_order_seq_cst);
      break;
    }
  } while (!ref.slot->word.compare_exchange_weak(held, with_phase(held, Phase::kReleasing),`,
    ],
    [
      'P::unlock(&storage->rwlock);  // R2\n',
      `if (MUTANT(R4_BEFORE_R2)) become_idle(ref, std::memory_order_release);
  const bool looked_early = MUTANT(R3_BEFORE_R2) && !wants_poke(ref.lock->gate.load(std::memory_order_seq_cst));
  P::unlock(&storage->rwlock);  // R2
  if (looked_early) {
    become_idle(ref, std::memory_order_release);
    return Status::kOk;
  }
`,
    ],
  ],
  'transfer.h': [
    [
      'freeze(latched, ref.lock_index, storage_of(held));',
      'if (!MUTANT(DOWNGRADE_NO_FREEZE)) freeze(latched, ref.lock_index, storage_of(held));',
    ],
    [
      'ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh, ref.tag), std::memory_order_seq_cst);',
      `if (MUTANT(DOWNGRADE_V5_FIRST)) set_gate(*ref.lock, fresh);
  ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh, ref.tag), std::memory_order_seq_cst);`,
    ],
    [
      'look_latched(latched, ref.lock_index);',
      'if (!MUTANT(STEAL_NO_LOOK)) look_latched(latched, ref.lock_index);',
    ],
    [
      'freeze(latched, ref.lock_index, current);',
      'if (!MUTANT(STEAL_NO_FREEZE)) freeze(latched, ref.lock_index, current);',
    ],
    [
      '  std::vector<uint32_t> robbed;\n',
      `  if (MUTANT(TOKEN_BEFORE_STOLEN)) *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (MUTANT(STEAL_S4_FIRST)) set_gate(entry, fresh);
  if (MUTANT(STEAL_HELD_FIRST)) {
    ref.slot->word.store(slot_word(Phase::kHeld, Mode::kExclusive, fresh, ref.tag), std::memory_order_seq_cst);
  }
  std::vector<uint32_t> robbed;
`,
    ],
    [
      '  ref.slot->word.store(trying, std::memory_order_seq_cst);\n',
      `  ref.slot->word.store(MUTANT(S5_BEFORE_S4) ? with_phase(trying, Phase::kHeld) : trying, std::memory_order_seq_cst);
`,
    ],
    ['while (is_held(word) &&\n', 'while (is_held(word) && &other != ref.slot &&\n'],
    [
      `*token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  entry.holder.store(`,
      `const bool steals = !is_held(ref.slot->word.load(std::memory_order_relaxed));
  if (!MUTANT(TOKEN_BEFORE_STOLEN) || !steals) *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  entry.holder.store(`,
    ],
    [
      'if (!holds_so || tag_of(word) != ref.tag) return Status::kNotHeld;',
      'if (!MUTANT(CLEAR_UNCHECKED) && (!holds_so || tag_of(word) != ref.tag)) return Status::kNotHeld;',
    ],
  ],
  'upgrade.h': [
    [
      'if (upgrader(latched, ref.lock_index) != 0) return Status::kUpgrading;',
      'if (upgrader(latched, ref.lock_index) != 0 && !MUTANT(UPGRADE_SECOND)) return Status::kUpgrading;',
    ],
    [
      'ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2',
      'if (!MUTANT(UPGRADE_KEEPS_POKED)) ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2',
    ],
    [
      'get(slot(first).ticket) - 1);',
      'MUTANT(UPGRADE_YOUNG) ? get(header_->ticket) + 1 : get(slot(first).ticket) - 1);',
    ],
    [
      'kSlotUpgrading | kSlotAsync | kSlotFair |',
      'kSlotUpgrading | kSlotAsync | (MUTANT(UPGRADE_UNFAIR) ? 0 : kSlotFair) |',
    ],
    ['add(of.queue_fair, 1);', 'add(of.queue_fair, MUTANT(UPGRADE_UNFAIR) ? 0 : 1);'],
    [
      'lock(lock_index).gate.fetch_and(~kGatePoked, std::memory_order_seq_cst); }',
      'if (!MUTANT(UPGRADE_ENDS_POKED)) lock(lock_index).gate.fetch_and(~kGatePoked, std::memory_order_seq_cst); }',
    ],
    [
      'freeze(latched, ref.lock_index, current);',
      'if (!MUTANT(UPGRADE_NO_FREEZE)) freeze(latched, ref.lock_index, current);',
    ],
    [
      'if (has_other_holder(latched, ref)) {',
      'if (has_other_holder(latched, ref) && !MUTANT(UPGRADE_UNCHECKED)) {',
    ],
    [
      'set_gate(entry, current);\n    free_entry',
      'if (!MUTANT(UPGRADE_LEFT_RECOVERING)) set_gate(entry, current);\n    free_entry',
    ],
  ],
  'recovery.h': [
    ['  if (!all) {\n', '  if (!all && !MUTANT(STORAGE_REUSED) && !MUTANT(RETIRED_TO_POOL)) {\n'],
    [
      `const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  freeze(latched, lock_index, current);  // V2`,
      `if (MUTANT(V1_AFTER_V2)) freeze(latched, lock_index, storage_of(entry.gate.load(std::memory_order_seq_cst)));
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  if (!MUTANT(V1_AFTER_V2) && !MUTANT(V2_SKIPPED)) freeze(latched, lock_index, current);  // V2`,
    ],
    [
      'if ((!is_held(word) && !is_left(word)) || mode_of(word) != Mode::kExclusive) return true;\n    if (!is_gone(',
      `if (MUTANT(MARK_ANY_DEAD) && refers(word) && mode_of(word) == Mode::kExclusive && is_gone(word)) {
      dead_writer = &other;
      dead_word = word;
    }
    if ((!is_held(word) && !is_left(word)) || mode_of(word) != Mode::kExclusive) return true;
    if (MUTANT(LEFT_LIVE) && is_left(word)) {
      live_writer = 1;
      return true;
    }
    if (!is_gone(`,
    ],
    ['live_writer = true;', 'live_writer = !MUTANT(V3_IGNORES_WRITER);'],
    [
      `    carry_readers(latched, lock_index, next);
  }
`,
      `    if (MUTANT(V5_BEFORE_V3)) set_gate(entry, next);
    if (!MUTANT(V3_NOT_CARRIED)) carry_readers(latched, lock_index, next);
  }
  if (MUTANT(DEAD_FREED_FIRST)) {
    each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
      const uint64_t word = word_of(other);
      if (!is_live(owner_of(word))) other.word.store(idle_word(word), std::memory_order_relaxed);
      return true;
    });
  }
  if (MUTANT(MARK_AFTER_V5)) set_gate(entry, next);
`,
    ],
    [
      `    P::try_lock(rwlock, Mode::kShared);
    if (!other.word.compare_exchange_strong(`,
      `    if (MUTANT(V3_CAS_FIRST)) {
      if (other.word.compare_exchange_strong(word, slot_word(Phase::kHeld, Mode::kShared, storage, tag_of(word)),
                                             std::memory_order_seq_cst)) {
        P::try_lock(rwlock, Mode::kShared);
      }
      return true;
    }
    P::try_lock(rwlock, Mode::kShared);
    if (!other.word.compare_exchange_strong(`,
    ],
    ['P::unlock(rwlock);  //', 'if (!MUTANT(V3_NO_GIVE_BACK)) P::unlock(rwlock);  //'],
    [
      '    poke_again(latched, lock_index);\n',
      '    if (!MUTANT(DEATH_SWALLOWS_POKE)) poke_again(latched, lock_index);\n',
    ],
    [
      'if (tag_of(word) != ref.tag || is_left(word)) return;',
      `if (tag_of(word) != ref.tag || is_left(word)) return;
    if (MUTANT(LEFT_STORE) && is_held(word) && mode_of(word) == Mode::kExclusive) {
      slot.word.store(left_word(word, Mode::kExclusive, storage_of(word)), std::memory_order_seq_cst);
      break;
    }`,
    ],
    [
      'holds(word, Mode::kExclusive) ? left_word(word, Mode::kExclusive, storage_of(word))',
      `holds(word, Mode::kExclusive) ||
                (MUTANT(LEFT_MARKS_RELEASING) && phase_of(word) == Phase::kReleasing)
            ? left_word(word, Mode::kExclusive, storage_of(word))`,
    ],
    [
      'own->left.fetch_or(1, std::memory_order_release); set_wanted(self_);',
      `if (MUTANT(LEFT_UNSAID)) return;
  if (MUTANT(LEFT_OVERWRITTEN)) {
    own->left.store(1, std::memory_order_release);
  } else {
    own->left.fetch_or(1, std::memory_order_release);
  }
  set_wanted(self_);`,
    ],
    [
      'if (!is_gone(word) || (left && storage_of(word) == next)) return true;',
      'if (!is_gone(word) || (left && storage_of(word) == next && !MUTANT(LEFT_TAKEN_ALONG))) return true;',
    ],
    [
      '  for (const uint32_t index : gone) {\n',
      `  if (MUTANT(LEFT_UNSEEN) && left_alone) {
    gone.clear();
    each_slot(owner.slots_head, kByProcess, [&](uint32_t index, Slot<P>& left) {
      if (is_left(word_of(left))) gone.push_back(index);
      return true;
    });
  }
  for (const uint32_t index : gone) {
`,
    ],
  ],
  'rebuild.h': [
    [
      'if (get(entry.queue_head) != 0) poke_again(latched, index);',
      'if (get(entry.queue_head) != 0 && !MUTANT(REBUILD_NO_POKE)) poke_again(latched, index);',
    ],
    [
      `if ((flags_of(entry) & kSlotOnDoorbell) != 0) {
      put_on_doorbell(latched, index);`,
      `if (MUTANT(REBUILD_DROPS_DOORBELL)) {
      entry.flags.fetch_and(~kSlotOnDoorbell, std::memory_order_relaxed);
    } else if ((flags_of(entry) & kSlotOnDoorbell) != 0) {
      put_on_doorbell(latched, index);`,
    ],
    [
      'if (lock_index == 0 || !refers(word) || !take(storage_of(word))) continue;',
      'if (MUTANT(REBUILD_IGNORES_SLOTS) || lock_index == 0 || !refers(word) || !take(storage_of(word))) continue;',
    ],
  ],
  'names.h': [
    [
      '  if (get(entry.slots_head) != 0) fault_ = true;\n',
      `  if (get(entry.slots_head) != 0 && !MUTANT(RECLAIM_BOUND)) fault_ = true;
`,
    ],
    [
      '  const uint64_t token = entry.token.load(std::memory_order_relaxed);\n',
      `  if (MUTANT(FLOOR_AFTER_NAME)) entry.name_bytes.store(0, std::memory_order_release);
  const uint64_t token = entry.token.load(std::memory_order_relaxed);
`,
    ],
    [
      'if (oldest == 0 && marked_too) {',
      'if ((oldest == 0 && marked_too) || (MUTANT(RECLAIM_ABANDONED) && get(header_->marked_head) != 0)) {',
    ],
    [
      'std::max(P::wall_ns(), header_->token_floor.load(std::memory_order_relaxed))',
      'MUTANT(FLOOR_IGNORED) ? P::wall_ns() : std::max(P::wall_ns(), header_->token_floor.load(std::memory_order_relaxed))',
    ],
    [
      '  P::init(&at(storages_, storage).rwlock);\n',
      `  if (MUTANT(NAME_FIRST)) {
    set(entry.hash, hash);
    entry.name_bytes.store(name.size | kNameUsed | (name.utf16 ? kNameUtf16 : 0), std::memory_order_release);
  }
  P::init(&at(storages_, storage).rwlock);
`,
    ],
  ],
  'tables.h': [
    [
      'if (get(of.slots_head) == 0) lock_unused(latched, lock_index);',
      'if (MUTANT(RECLAIM_BOUND) || get(of.slots_head) == 0) lock_unused(latched, lock_index);',
    ],
  ],
  'latch.h': [
    ['if (dirty_) rebuild(latched);', 'if (dirty_ && !MUTANT(NO_REBUILD)) rebuild(latched);'],
    [
      'const uint64_t taken = latch_word(me) | (word & kLatchDirty) | (has_slept ? kLatchWaiters : 0);',
      `const uint64_t taken = latch_word(me) | (MUTANT(CLEARED_EARLY) ? 0 : word & kLatchDirty) |
                             (has_slept && !MUTANT(TAKES_WITHOUT_BIT) ? kLatchWaiters : 0);`,
    ],
    [
      'if (!latch.compare_exchange_strong(word, word | kLatchWaiters, std::memory_order_relaxed)) continue;',
      `if (MUTANT(BIT_AFTER_LOOK)) {
        word = latch.fetch_or(kLatchWaiters, std::memory_order_relaxed);
      } else if (!latch.compare_exchange_strong(word, word | kLatchWaiters, std::memory_order_relaxed)) {
        continue;
      }`,
    ],
    [
      'local_.lock();\n    has_slept = true;\n    now = P::monotonic_ns();',
      `if (!MUTANT(NOT_RETAKEN)) local_.lock();
    has_slept = true;
    now = P::monotonic_ns();
    if (MUTANT(LEAVES_WOKEN) && now < until_ns) return Status::kStalled;`,
    ],
    [
      'if (suspect != me && !is_dead(suspect)) continue;',
      'if (suspect != me && !MUTANT(STEAL_UNASKED) && !is_dead(suspect)) continue;',
    ],
    [
      'if (latch.compare_exchange_strong(seen, latch_word(me) | kLatchDirty | kLatchWaiters,',
      'if (latch.compare_exchange_strong(seen, latch_word(me) | (MUTANT(STEAL_CLEAN) ? 0 : kLatchDirty) | kLatchWaiters,',
    ],
    [
      'uint32_t turn = asked;\n',
      `if (MUTANT(TURN_HELD) && (asked & 1) != 0) continue;
    uint32_t turn = asked;
`,
    ],
    [
      'is_ours = latch_owner(word) == memory_.number();',
      `is_ours = latch_owner(word) == memory_.number();
    if (is_ours && MUTANT(BIT_NOT_LOOKED_AT)) {
      latch.store(left_to_do, std::memory_order_release);
      break;
    }`,
    ],
    [
      'if (left_to_do == kLatchCorrupt) {',
      'if (left_to_do == kLatchCorrupt && !MUTANT(CORRUPT_WAKES_ONE)) {',
    ],
  ],
  'attach.h': [
    [
      'if (number != 0 && memory_.claim(number)) return Status::kOk;',
      `if (MUTANT(UNNAMED)) {
      memory_.number_without_token(number);
      return Status::kOk;
    }
    if (number != 0 && memory_.claim(number)) return Status::kOk;`,
    ],
    [
      '  self_ = index;\n  attached_ = true;\n  return latched.status();',
      `  self_ = index;
  attached_ = true;
  if (MUTANT(UNNAMED)) memory_.claim(memory_.number());
  return latched.status();`,
    ],
  ],
  'detect.h': [
    [
      'bits.fetch_and(~(uint64_t{1} << place), std::memory_order_relaxed);',
      `if (MUTANT(BIT_CLEARED_LATE)) {
        processes->push_back(n * 64 + place);
        taken++;
        continue;
      }
      bits.fetch_and(~(uint64_t{1} << place), std::memory_order_relaxed);`,
    ],
    [
      'if (asked.empty()) return looked;',
      `if (MUTANT(BIT_CLEARED_LATE)) {
    for (Atomic<uint64_t>& bits : header_->wanted) bits.store(0, std::memory_order_relaxed);
  }
  if (asked.empty()) return looked;`,
    ],
    [
      'const uint32_t count = std::min(turn - count_wanted(wanted_max), in_use);',
      'const uint32_t count = MUTANT(CURSOR_STARVED) && count_wanted(wanted_max) != 0 ? 0 : std::min(turn - count_wanted(wanted_max), in_use);',
    ],
    [
      'check_processes(latched, asked);',
      `if (MUTANT(D5_UNASKED)) {
      for (const uint32_t index : asked) {
        if (index != self_) mark_dead(index);
      }
    }
    check_processes(latched, asked);`,
    ],
  ],
  'queue.h': [
    [
      '  const uint64_t barrier = entry.barrier_ns.load(std::memory_order_relaxed);\n',
      `  if (MUTANT(NO_BARRIER)) return true;
  const uint64_t barrier = entry.barrier_ns.load(std::memory_order_relaxed);
`,
    ],
    [
      'if ((flags_of(entry) & kSlotOnDoorbell) == 0) put_on_doorbell(latched, slot_index);',
      `if ((flags_of(entry) & kSlotOnDoorbell) == 0) {
    put_on_doorbell(latched, slot_index);
  } else if (MUTANT(RING_NOT_REPEATED)) {
    return;
  }`,
    ],
    [
      'poke(latched, index); return shared && !first_alone;',
      'poke(latched, index); return shared && !first_alone && !MUTANT(POKE_FIRST_ONLY);',
    ],
    [
      'if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) poke_front(latched, lock_index);',
      `if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) {
    if (MUTANT(KEEP_POKED_SWALLOWS)) {
      lock(lock_index).gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
    } else {
      poke_front(latched, lock_index);
    }
  }`,
    ],
    [
      'if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) return;',
      `if (MUTANT(KEEP_POKED_UNCHECKED)) {
    lock(lock_index).gate.fetch_or(kGatePoked, std::memory_order_seq_cst);
    return;
  }
  if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) return;`,
    ],
    [
      `    while ((flags & kSlotPoked) != 0 &&
`,
      `    if (MUTANT(SKIP_UNCHECKED) && (flags & kSlotEligible) != 0) {
      waiter.flags.fetch_or(kSlotSkipped, std::memory_order_relaxed);
      return true;
    }
    while ((flags & kSlotPoked) != 0 &&
`,
    ],
    [
      `  front_changed(latched, lock_index);
  poke_front(latched, lock_index);
  return latched.status();`,
      `  front_changed(latched, lock_index);
  if (!MUTANT(SKIP_POKES_NOBODY)) poke_front(latched, lock_index);
  return latched.status();`,
    ],
    [
      'return std::any_of(slow.begin(), slow.end(), [&](const Slow& one) {',
      `if (MUTANT(PASS_ONE_ALONE)) return false;
    return std::any_of(slow.begin(), slow.end(), [&](const Slow& one) {`,
    ],
    [
      'waiter.flags.fetch_or(kSlotSkipped | kSlotPoked, std::memory_order_relaxed); tell(latched, index);',
      `waiter.flags.fetch_or(kSlotSkipped | (MUTANT(PASS_SKIPPED_UNPOKED) ? 0 : kSlotPoked), std::memory_order_relaxed);
    if (!MUTANT(PASS_SKIPPED_UNPOKED)) tell(latched, index);`,
    ],
    [
      'if ((flags & kSlotPassedOver) != 0) return true;\n    // Only together',
      `if ((flags & kSlotPassedOver) != 0 && !MUTANT(PASS_ENDS_EARLY)) return true;
    // Only together`,
    ],
    [
      'poke_front(latched, ref.lock_index); *flags =',
      `if (!MUTANT(COME_BACK_POKES_NOBODY)) poke_front(latched, ref.lock_index);
  *flags =`,
    ],
    ['if (announced == 0) return;', 'if (announced == 0 || MUTANT(UNWATCHED_UNSEEN)) return;'],
    ['watchers == kWatchersMax) {', 'watchers == (MUTANT(RINGS_FOR_ONE) ? 1 : kWatchersMax)) {'],
    [
      'own->seldom.store(1, std::memory_order_seq_cst);',
      'if (!MUTANT(SELDOM_UNSAID)) own->seldom.store(1, std::memory_order_seq_cst);',
    ],
  ],
  'wait.h': [
    [
      'if (!first && mode == Mode::kShared) {',
      'if (!first && mode == Mode::kShared && !MUTANT(READER_NOT_ELIGIBLE)) {',
    ],
    [
      'eligible = (other & (kSlotEligible | kSlotExclusive)) == kSlotEligible;',
      'eligible = MUTANT(READERS_PASS_WRITER) || (other & (kSlotEligible | kSlotExclusive)) == kSlotEligible;',
    ],
    [
      'return eligible ? Status::kOk : Status::kAgain;',
      'return eligible && !MUTANT(NO_SECOND_LOOK) ? Status::kOk : Status::kAgain;',
    ],
    [
      '  ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);\n  const uint32_t next',
      `  if (!MUTANT(GRANT_LEAVES_POKED)) ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
  const uint32_t next`,
    ],
    [
      'const bool beside = mode_of(word) == Mode::kShared &&',
      'const bool beside = !MUTANT(GRANT_POKES_NO_READERS) && mode_of(word) == Mode::kShared &&',
    ],
    [
      'if (!is_held(word) || (beside && !told)) {',
      `const bool robbed = phase_of(word) == Phase::kStolen;
  if ((!is_held(word) && !MUTANT(LATE_SETTLES_NOTHING) && !(MUTANT(ROBBED_SETTLES_NOTHING) && robbed)) ||
      (beside && !told)) {`,
    ],
    [
      '  if ((flags & kSlotSkipped) != 0) {\n',
      '  if ((flags & kSlotSkipped) != 0 && !MUTANT(UNSKIP_FORGOTTEN)) {\n',
    ],
    [
      'ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2',
      'if (!MUTANT(POKED_TAKEN_BACK_LATE)) ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2',
    ],
    [
      'if (tried == Try::kBusy) return Status::kAgain;',
      `if (MUTANT(POKED_TAKEN_BACK_LATE)) ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
    if (tried == Try::kBusy) return Status::kAgain;`,
    ],
    ['  if (was_front) {\n', '  if (was_front && !MUTANT(WITHDRAW_SWALLOWS_POKE)) {\n'],
    [
      'front(latched, ref.lock_index) == ref.slot_index;',
      '(front(latched, ref.lock_index) == ref.slot_index && !MUTANT(WITHDRAW_ELIGIBLE_ALONE));',
    ],
    [
      'if (!told || !under_way || (flags & kSlotPoked) == 0) poke_front(latched, lock_index, told);',
      `const bool reacted = (flags & kSlotPoked) == 0 && !MUTANT(PASS_ON_UNCHECKED);
  if (!told || ((!under_way || reacted) && !MUTANT(PASS_ON_TO_NOBODY))) poke_front(latched, lock_index, told);`,
    ],
  ],
};

const listed = JSON.parse(readFileSync(join(root, 'native/model/mutants.json'), 'utf8')).map(
  ({ name }) => name,
);
const namesIn = (edits) => [...JSON.stringify(edits).matchAll(/MUTANT\((\w+)\)/g)].map(([, name]) => name);
/** The model's, and some that it has no place for. */
const core = [...new Set([...listed, ...namesIn(EDITS), 'WAKE_READ_LATE'])];
const names = [...core, ...new Set([...namesIn(RUNTIME_EDITS), 'SLEEPS_BEFORE_IT_SAYS'])];
/** These are mutants of the simulated platform. */
const used = new Set(['WAKE_READ_LATE', 'SLEEPS_BEFORE_IT_SAYS']);
/** What does not fit the sources any more. A test says so: a build that fails would stop all others. */
const stale = [];

function mutate(folder, file) {
  let text = readFileSync(join(root, 'native', folder, file), 'utf8');
  for (const [from, to] of [...(EDITS[file] ?? []), ...(RUNTIME_EDITS[file] ?? [])]) {
    // However it is broken into lines.
    const words = from
      .trim()
      .split(/\s+/)
      .map((word) => word.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    const pattern = new RegExp(words.join('\\s+'), 'g');
    const found = [...text.matchAll(pattern)].length;
    if (found === 1) text = text.replace(pattern, () => to.trim());
    else stale.push(`${file}: ${found} times in the source instead of once: ${from.trim().split('\n')[0]}`);
  }
  return text.replaceAll(/MUTANT\((\w+)\)/g, (_, name) => {
    used.add(name);
    return `(mutant == Mutant::${name})`;
  });
}

for (const folder of ['core', 'runtime']) {
  mkdirSync(join(output, folder), { recursive: true });
  // process.h is the runtime on the system that this is built for.
  const headers = readdirSync(join(root, 'native', folder)).filter(
    (file) => file.endsWith('.h') && file !== 'process.h',
  );
  for (const file of headers) {
    const include = file === 'core.h' ? '#pragma once\n#include "../mutant.h"' : '#pragma once';
    writeFileSync(join(output, folder, file), mutate(folder, file).replace('#pragma once', include));
  }
}
Object.assign(NOT_HUNTED, RUNTIME_NOT_HUNTED);
for (const name of names.filter((name) => !used.has(name))) NOT_HUNTED[name] ??= 'has no place in the source';
writeFileSync(
  join(output, 'mutant.h'),
  `#pragma once
namespace proclock {
enum class Mutant { kNone, ${names.join(', ')}, kCount };
inline Mutant mutant = Mutant::kNone;
// From here on they are the runtime's.
inline constexpr int kFirstOfRuntime = ${core.length + 1};
inline constexpr const char* kMutantNames[] = {"none", ${names.map((name) => JSON.stringify(name)).join(', ')}};
inline constexpr const char* kStale[] = {${[...stale, ''].map((line) => JSON.stringify(line)).join(', ')}};
inline constexpr const char* kNotHunted[][2] = {${Object.entries(NOT_HUNTED)
    .map((pair) => `{${pair.map((text) => JSON.stringify(text)).join(', ')}}`)
    .join(', ')}};
}  // namespace proclock
`,
);
