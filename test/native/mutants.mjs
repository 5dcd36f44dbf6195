// Writes the core with mutants in it to build/mutants: `node test/native/mutants.mjs`.
//
// Each mutant of native/model/mutants.json is one argument of the core that is broken on purpose. Here it is a change of the
// source: a piece of text that occurs exactly once, and what it becomes, where MUTANT(NAME) is true while that mutant is
// switched on. So the shipped source knows nothing of mutants, and one program runs all of them.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const output = join(root, 'build/mutants');

/** Mutants that are not hunted here: they cost a wake-up at most, or are rarer than what a run of CI has schedules for. */
const NOT_HUNTED = {
  KEEP_POKED_SWALLOWS: 'who settles a shared grant pokes the next one, whatever a release saw',
  POKE_FIRST_ONLY: 'the first one pokes the next when it settles, one after another',
  READER_NOT_ELIGIBLE: 'the waiter ahead pokes it when it settles, withdraws, dies or is passed over',
  REBUILD_DROPS_DOORBELL: 'the same rebuild puts it back: poke_again() rings for every waiter that was poked',
  UNDO_WITHOUT_R3:
    'needs four actors to meet at exact steps, once in some millions of schedules: the model finds it',
};

const EDITS = {
  'words.h': [
    ['constexpr bool refers(uint64_t word) {', 'inline bool refers(uint64_t word) {'],
    [
      'phase_of(word) <= Phase::kStale;',
      'phase_of(word) <= (MUTANT(STALE_NOT_REFERRING) ? Phase::kReleasing : Phase::kStale);',
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
      `P::unlock(&storage->rwlock);
      if (!ok(release_duty(ref))) return Try::kOwing;`,
      `if (!MUTANT(STALE_NOT_UNDONE)) P::unlock(&storage->rwlock);
      if (MUTANT(UNDO_WITHOUT_R3)) {
        slot.word.store(kIdleWord, std::memory_order_release);
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
      `  if (MUTANT(R4_BEFORE_R3)) ref.slot->word.store(kIdleWord, std::memory_order_release);
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
      `if (MUTANT(R4_BEFORE_R2)) ref.slot->word.store(kIdleWord, std::memory_order_release);
  const bool looked_early = MUTANT(R3_BEFORE_R2) && !wants_poke(ref.lock->gate.load(std::memory_order_seq_cst));
  P::unlock(&storage->rwlock);  // R2
  if (looked_early) {
    ref.slot->word.store(kIdleWord, std::memory_order_release);
    return Status::kOk;
  }
`,
    ],
    [
      'freeze(guard, ref.lock_index, storage_of(held));',
      'if (!MUTANT(DOWNGRADE_NO_FREEZE)) freeze(guard, ref.lock_index, storage_of(held));',
    ],
    [
      'ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh), std::memory_order_seq_cst);',
      `if (MUTANT(DOWNGRADE_V5_FIRST)) set_gate(*ref.lock, fresh);
  ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh), std::memory_order_seq_cst);`,
    ],
    [
      'look_guarded(guard, ref.lock_index);',
      'if (!MUTANT(STEAL_NO_LOOK)) look_guarded(guard, ref.lock_index);',
    ],
    [
      'freeze(guard, ref.lock_index, current);',
      'if (!MUTANT(STEAL_NO_FREEZE)) freeze(guard, ref.lock_index, current);',
    ],
    [
      '  std::vector<uint32_t> robbed;\n',
      `  if (MUTANT(TOKEN_BEFORE_STOLEN)) *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (MUTANT(STEAL_S4_FIRST)) set_gate(entry, fresh);
  if (MUTANT(STEAL_HELD_FIRST)) {
    ref.slot->word.store(slot_word(Phase::kHeld, Mode::kExclusive, fresh), std::memory_order_seq_cst);
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
      `if (!MUTANT(TOKEN_BEFORE_STOLEN)) *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  entry.holder.store(`,
    ],
    [
      'if (!holds(ref.slot->word.load(std::memory_order_relaxed), Mode::kExclusive)) return Status::kNotHeld;',
      `if (!MUTANT(CLEAR_UNCHECKED) && !holds(ref.slot->word.load(std::memory_order_relaxed), Mode::kExclusive)) {
    return Status::kNotHeld;
  }`,
    ],
  ],
  'recovery.h': [
    ['  if (!all) {\n', '  if (!all && !MUTANT(STORAGE_REUSED) && !MUTANT(RETIRED_TO_POOL)) {\n'],
    [
      `const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  freeze(guard, lock_index, current);  // V2`,
      `if (MUTANT(V1_AFTER_V2)) freeze(guard, lock_index, storage_of(entry.gate.load(std::memory_order_seq_cst)));
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  if (!MUTANT(V1_AFTER_V2) && !MUTANT(V2_SKIPPED)) freeze(guard, lock_index, current);  // V2`,
    ],
    [
      'if (!holds(word, Mode::kExclusive)) return true;\n    if (is_live(',
      `if (MUTANT(MARK_ANY_DEAD) && refers(word) && mode_of(word) == Mode::kExclusive &&
        !is_live(other.process.load(std::memory_order_relaxed))) {
      dead_writer = &other;
    }
    if (!holds(word, Mode::kExclusive)) return true;
    if (is_live(`,
    ],
    ['live_writer = true;', 'live_writer = !MUTANT(V3_IGNORES_WRITER);'],
    [
      `    carry_readers(guard, lock_index, next);
  }
`,
      `    if (MUTANT(V5_BEFORE_V3)) set_gate(entry, next);
    if (!MUTANT(V3_NOT_CARRIED)) carry_readers(guard, lock_index, next);
  }
  if (MUTANT(DEAD_FREED_FIRST)) {
    each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
      if (!is_live(other.process.load(std::memory_order_relaxed))) {
        other.word.store(kIdleWord, std::memory_order_relaxed);
      }
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
      if (other.word.compare_exchange_strong(word, slot_word(Phase::kHeld, Mode::kShared, storage),
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
      '    poke_again(guard, lock_index);\n',
      '    if (!MUTANT(DEATH_SWALLOWS_POKE)) poke_again(guard, lock_index);\n',
    ],
    [
      'if (get(entry.queue_head) != 0) poke_again(guard, index);',
      'if (get(entry.queue_head) != 0 && !MUTANT(REBUILD_NO_POKE)) poke_again(guard, index);',
    ],
    [
      'if ((flags & kSlotOnDoorbell) != 0) put_on_doorbell(guard, index);',
      `if (MUTANT(REBUILD_DROPS_DOORBELL)) {
      entry.flags.fetch_and(static_cast<uint16_t>(~kSlotOnDoorbell), std::memory_order_relaxed);
    } else if ((flags & kSlotOnDoorbell) != 0) {
      put_on_doorbell(guard, index);
    }`,
    ],
    [
      'if (get(entry.lock) == 0 || !refers(word) || !take(storage_of(word))) continue;',
      'if (MUTANT(REBUILD_IGNORES_SLOTS) || get(entry.lock) == 0 || !refers(word) || !take(storage_of(word))) continue;',
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
      'if (get(entry.abandoned) != 0) return;',
      'if (get(entry.abandoned) != 0 && !MUTANT(RECLAIM_ABANDONED)) return;',
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
  'arena.h': [
    ['if (owner_died) arena.rebuild(*this);', 'if (owner_died && !MUTANT(NO_REBUILD)) arena.rebuild(*this);'],
    [
      'if (get(of.slots_head) == 0) lock_unused(guard, lock_index);',
      'if (MUTANT(RECLAIM_BOUND) || get(of.slots_head) == 0) lock_unused(guard, lock_index);',
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
      'if ((flags & kSlotOnDoorbell) == 0) put_on_doorbell(guard, slot_index);',
      `if ((flags & kSlotOnDoorbell) == 0) {
    put_on_doorbell(guard, slot_index);
  } else if (MUTANT(RING_NOT_REPEATED)) {
    return;
  }`,
    ],
    ['ended = !shared;', 'ended = !shared || MUTANT(POKE_FIRST_ONLY);'],
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
      'if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) poke_front(guard, lock_index);',
      `if ((next.flags.load(std::memory_order_seq_cst) & kSlotPoked) == 0) {
    if (MUTANT(KEEP_POKED_SWALLOWS)) {
      lock(lock_index).gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);
    } else {
      poke_front(guard, lock_index);
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
      `  front_changed(guard, lock_index);
  poke_front(guard, lock_index);
  return guard.status();`,
      `  front_changed(guard, lock_index);
  if (!MUTANT(SKIP_POKES_NOBODY)) poke_front(guard, lock_index);
  return guard.status();`,
    ],
  ],
};

const listed = JSON.parse(readFileSync(join(root, 'native/model/mutants.json'), 'utf8')).map(
  ({ name }) => name,
);
const here = [...JSON.stringify(EDITS).matchAll(/MUTANT\((\w+)\)/g)].map(([, name]) => name);
/** The model's, and some that it has no place for. */
const names = [...new Set([...listed, ...here, 'WAKE_READ_LATE'])];
const used = new Set(['WAKE_READ_LATE']);
/** What does not fit the sources any more. A test says so: a build that fails would stop all others. */
const stale = [];

function mutate(file) {
  let text = readFileSync(join(root, 'native', file), 'utf8');
  for (const [from, to] of EDITS[file] ?? []) {
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

mkdirSync(output, { recursive: true });
const headers = [
  'status.h',
  'words.h',
  'platform.h',
  'layout.h',
  'arena.h',
  'names.h',
  'protocol.h',
  'queue.h',
  'recovery.h',
];
for (const file of headers) writeFileSync(join(output, file), mutate(file));
writeFileSync(
  join(output, 'core.h'),
  `#pragma once\n#include "mutant.h"\n${headers.map((file) => `#include "${file}"\n`).join('')}`,
);
for (const name of names.filter((name) => !used.has(name))) NOT_HUNTED[name] ??= 'has no place in the source';
writeFileSync(
  join(output, 'mutant.h'),
  `#pragma once
namespace proclock {
enum class Mutant { kNone, ${names.join(', ')}, kCount };
inline Mutant mutant = Mutant::kNone;
inline constexpr const char* kMutantNames[] = {"none", ${names.map((name) => JSON.stringify(name)).join(', ')}};
inline constexpr const char* kStale[] = {${[...stale, ''].map((line) => JSON.stringify(line)).join(', ')}};
inline constexpr const char* kNotHunted[][2] = {${Object.entries(NOT_HUNTED)
    .map((pair) => `{${pair.map((text) => JSON.stringify(text)).join(', ')}}`)
    .join(', ')}};
}  // namespace proclock
`,
);
