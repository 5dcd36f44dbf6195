// Writes the native part with crash points in it to build/crash (of an instrumented build, to that of its own): `node test/native/crash-points.mjs`.
//
// A crash point is a place at which a test can have its process killed or stopped (test/native/crash.h). The table says
// where they are: before or after a piece of text that occurs exactly once. So the shipped source knows nothing of them,
// and a change of the source that loses a point fails here. They are named after the steps of protocol.h and queue.h
// where there is one, and stand behind it; a dot names what happened in the middle of a step, or a way out of it.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativeRoot } from '../../scripts/instrument.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const output = join(root, nativeRoot, 'build/crash');

const after = (name, text) => ({ name, text, behind: true });
const before = (name, text) => ({ name, text, behind: false });

const POINTS = {
  'protocol.h': [
    before('A1', '// A2. seq_cst, because'),
    before('A2', '// A3. seq_cst: the other half of it.'),
    before('A3', 'if (!P::try_lock(&storage->rwlock, mode)) {'),
    before('A3.again', 'continue; } if (!P::try_lock('),
    before('A4', '// A5. seq_cst on both outcomes'),
    before('A4.busy', 'become_idle(ref, std::memory_order_release); return Try::kBusy;'),
    before('A5', 'if (mode == Mode::kShared) { *token'),
    before('A5.stale', 'P::unlock(&storage->rwlock); if (!ok(release_duty(ref)))'),
    before('A5.undone', 'if (!ok(release_duty(ref))) return Try::kOwing;'),
    before('A6', 'if (is_held(slot.word.load(std::memory_order_relaxed))) {'),
    before('A6.stolen', 'become_idle(ref, std::memory_order_release); } slot.since'),
    before('acquired', 'return Try::kAcquired;'),
    before('R1', 'Storage<P>* storage = find(storages_, storage_of(held));'),
    before('R1.stolen', 'return Status::kStolen; } } while (!ref.slot'),
    after('R2', 'P::unlock(&storage->rwlock);  // R2\n'),
    after('R3.poked', 'wake_later_ = false;'),
    before('R3', '// R4. Last, because'),
    before('R4', 'return Status::kOk; } // kStalled: it is released'),
  ],
  'transfer.h': [
    before('downgrade.begun', 'ref.lock->gate.fetch_or(kGateRecovering, std::memory_order_seq_cst);  // V1'),
    before('downgrade.V1', 'freeze(latched, ref.lock_index, storage_of(held));  // V2'),
    before('downgrade.V2', 'P::init(&storage.rwlock);  // V3'),
    before('downgrade.V3', '// What was torn is repaired'),
    before('downgrade.held', 'set_gate(*ref.lock, fresh);  // V5'),
    before('downgrade.V5', '// The old storage goes with its write lock on'),
    before('S0', 'const uint32_t current = storage_of(entry.gate.fetch_or('),
    before('S1', 'freeze(latched, ref.lock_index, current);'),
    before('S2', '// S3. seq_cst: against R1'),
    before('S3.init', 'std::vector<uint32_t> robbed;'),
    before('S3.robbed', 'for (const uint32_t index : robbed) end_upgrade(latched, index);'),
    before('S3', 'set_gate(entry, fresh);  // S4, U7'),
    before('S4', '// S5, U8. After the gate, because'),
    after('S5', 'ref.slot->word.store(with_phase(trying, Phase::kHeld), std::memory_order_seq_cst);'),
    after('S5.told', 'for (const uint32_t index : robbed) ring(latched, index);'),
  ],
  'upgrade.h': [
    before('upgrade.queued', 'demote_followers(latched, ref); of.gate.fetch_or('),
    after('upgrade.W2', 'ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2\n'),
    before('U2', 'const uint32_t current = storage_of(entry.gate.fetch_or('),
    before('U3', 'freeze(latched, ref.lock_index, current);'),
    before('U4', '// U5'),
    before('U5', 'P::init(&at(storages_, fresh).rwlock);'),
    after('U8', 'take_over(latched, ref, current, fresh, token);  // U6 to U8\n'),
    before('upgrade.ended', 'front_changed(latched, lock_index); lock(lock_index).gate.fetch_and('),
  ],
  'queue.h': [
    after('keep.poked', 'lock(lock_index).gate.fetch_or(kGatePoked, std::memory_order_seq_cst);'),
    after('poke.marked', 'entry.gate.fetch_or(kGatePoked, std::memory_order_seq_cst);'),
    after(
      'poke.flagged',
      'slot(slot_index).flags.fetch_or(kSlotEligible | kSlotPoked, std::memory_order_relaxed);',
    ),
    after('poke.woken', 'wake(&entry.wake);'),
    before('ring.stacked', '// Also for one that is there already'),
    before('ring.rung', 'wake(&there.doorbell);'),
    before('take.begun', 'for (uint32_t index = get(own.poked_head)'),
    after('take.taken', 'slots->push_back(index);'),
    after('take.done', 'set(own.poked_head, 0);'),
    before(
      'skip.marked',
      'front_changed(latched, lock_index); poke_front(latched, lock_index); return latched.status();',
    ),
    before(
      'react.unskipped',
      'front_changed(latched, ref.lock_index); poke_front(latched, ref.lock_index); *flags',
    ),
  ],
  'wait.h': [
    before('enqueue.queued', 'of.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);  // W2'),
    after('enqueue.W2', 'of.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);  // W2\n'),
    before('react.begun', 'if (phase_of(ref.slot->word.load(std::memory_order_relaxed)) == Phase::kStale) {'),
    after('W2', 'ref.lock->gate.fetch_and(~kGatePoked, std::memory_order_seq_cst);  // W2\n'),
    before('W3', 'if (tried == Try::kCorrupt) return Status::kCorrupt;'),
    before('settle.removed', 'if (get(ref.lock->queue_head) == 0) return latched.status(); ref.lock->gate'),
    before('settle.next', 'if (!is_held(word) || (beside && !told))'),
    before('withdraw.removed', 'if (was_front) {'),
  ],
  'recovery.h': [
    before('V1', 'freeze(latched, lock_index, current);  // V2'),
    after('V2', 'freeze(latched, lock_index, current);  // V2\n'),
    after('V3.init', 'P::init(&at(storages_, next).rwlock);'),
    before('V3.carry', 'if (!other.word.compare_exchange_strong('),
    before('V3', '// V4 if (dead_writer != nullptr)'),
    before('V4', 'set_gate(entry, next);  // V5'),
    after('V5', 'set_gate(entry, next);  // V5\n'),
    before('V5.freed', 'retire_storage(latched, lock_index, current); return latched.status();'),
    after('dead.marked', 'set(entry.state, static_cast<uint32_t>(ProcessState::kDead));'),
    after('dead.unqueued', 'remove_waiter(latched, index);'),
    after('dead.unbound', 'unbind_slot(latched, index);'),
    before('dead.recovered', 'set(dead.state, static_cast<uint32_t>(ProcessState::kFree));'),
    after('dead.freed', 'free_entry(processes_, process_index);'),
    before('E1', '// What was released owes no more than the poke.'),
    before('E2', '// E3. release: pairs with recover_threads()'),
    after('E3', 'own->left.fetch_or(1, std::memory_order_release);'),
  ],
  'rebuild.h': [
    after('rebuild.begun', 'header_->rebuilds.fetch_add(1, std::memory_order_relaxed);'),
    before('rebuild.processes', 'if (!rebuild_locks() ||'),
    before('rebuild.fronts', '// Whoever was robbed may not have been told.'),
    before('rebuild.walkable', '// Now that everything can be walked'),
  ],
  'detect.h': [
    before('D2', 'std::vector<uint32_t> asked; take_wanted('),
    before('D5', 'check_processes(latched, asked);'),
  ],
  'latch.h': [
    before('L1', 'dirty_ = (word & kLatchDirty) != 0; return Status::kOk;'),
    before('L2', 'return Status::kOk; continue; } if (spins'),
    before(
      'L3',
      'uint64_t now = P::monotonic_ns(); if (deadline_ns == 0) deadline_ns = now + latch_patience(now); if (now >= deadline_ns) { if (Patience',
    ),
    before('L7', 'return Status::kOk; } } } }'),
    after('L8', 'if (dirty_) rebuild(latched);'),
    before('L9', '// L10 if (left_to_do'),
    before('L10', 'local_.unlock(); for (Atomic<uint32_t>* wake : wakes)'),
    after('latch.told', 'for (Atomic<uint32_t>* wake : wakes) P::wake(wake);'),
  ],
  'tables.h': [
    before('bind.filled', '// release, because: a rebuild after our death takes the slot for bound'),
    after('bind.bound', 'fresh.lock.store(lock_index, std::memory_order_release);'),
    before('bind.done', 'return latched.status(); } template <class P> void Arena<P>::take_off_doorbell'),
    after('unbind.freed', 'entry.lock.store(0, std::memory_order_release);'),
  ],
  'attach.h': [
    before('N1', 'if (number >= kNumbersMax) return Status::kCorrupt; if (number != 0'),
    before(
      'N2',
      'Latched latched(*this); if (!ok(latched.status())) return latched.status(); // The dead are found now',
    ),
    before('attach.filled', '// release, because: who finds it live'),
    after(
      'attach.live',
      'entry.state.store(static_cast<uint32_t>(ProcessState::kLive), std::memory_order_release);',
    ),
    after(
      'detach.free',
      'entry.state.store(static_cast<uint32_t>(ProcessState::kFree), std::memory_order_release);',
    ),
  ],
  'names.h': [
    after('create.storage', 'P::init(&at(storages_, storage).rwlock);'),
    before('create.filled', '// release, because: a rebuild after our death takes the entry for real'),
    before('create.named', 'Atomic<uint32_t>& home = bucket(bucket_of(hash, buckets_in_use()));'),
    before('create.found', 'return Status::kOk; } // The lock of this name, with'),
    before('reclaim.floor', '// release, because: a rebuild after our death must not find the entry gone'),
    after('reclaim.unnamed', 'entry.name_bytes.store(0, std::memory_order_release);'),
    before('reclaim.done', 'free_entry(locks_, index); } // Makes room'),
  ],
  'client_waits.h': [
    after('W1', 'const uint32_t seen = hold->ref.slot->wake.load(std::memory_order_acquire);'),
  ],
  'memory.cc': [
    before('open.created', 'if (group >= 0 && fchown('),
    before('open.attaching', 'if (ok(status)) status = prepare(name, opening);'),
    before('open.sized', 'static constexpr size_t kFirstPages[]'),
    before('open.reserved', 'const Status mapped = map();'),
    before('open.filled', '// release, because: whoever reads the magic number'),
    after('open.magic', 'header->magic.store(kMagic, std::memory_order_release);'),
  ],
};

function fail(message) {
  console.error(`crash points: ${message}`);
  process.exit(1);
}

/** Where the text is, whatever its line breaks and spaces are. */
function place(file, source, text, behind) {
  const pattern = text
    .split(/\s+/)
    .map((word) => word.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'))
    .join('\\s+');
  const found = [...source.matchAll(new RegExp(pattern, 'g'))];
  if (found.length !== 1) fail(`${file}: ${found.length} times in the source, not once:\n${text}`);
  const { 0: match, index } = found[0];
  return behind ? index + match.length : index;
}

const names = [];
function write(file) {
  let source = readFileSync(join(root, 'native', file), 'utf8');
  const insertions = (POINTS[basename(file)] ?? []).map(({ name, text, behind }) => ({
    index: place(file, source, text, behind),
    line: `CRASH_POINT(${names.push(name) - 1});`,
  }));
  if (file === 'addon.cc') {
    const text = 'exports.Set("supported", Napi::Boolean::New(env, true));';
    insertions.push({ index: place(file, source, text, false), line: 'crash::install(env, exports);' });
  }
  // From the end, so that the places stay where they are.
  for (const { index, line } of insertions.sort((a, b) => b.index - a.index)) {
    source = `${source.slice(0, index)}\n${line}\n${source.slice(index)}`;
  }
  if (file === 'core/status.h')
    source = source.replace('#pragma once', '#pragma once\n#include "../crash.h"');
  mkdirSync(dirname(join(output, 'native', file)), { recursive: true });
  writeFileSync(join(output, 'native', file), source);
}

rmSync(join(output, 'native'), { recursive: true, force: true });
mkdirSync(join(output, 'native'), { recursive: true });
const files = readdirSync(join(root, 'native'), { recursive: true }).filter((name) => /\.(cc|h)$/.test(name));
for (const file of files) write(file);
copyFileSync(join(root, 'test/native/crash.h'), join(output, 'native/crash.h'));
const missing = Object.keys(POINTS).filter((name) => !files.some((file) => basename(file) === name));
if (missing.length > 0) fail(`no such file: ${missing.join(', ')}`);
if (new Set(names).size !== names.length) fail('two points of one name');
writeFileSync(join(output, 'points.json'), JSON.stringify(names));
