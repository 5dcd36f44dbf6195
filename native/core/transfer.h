// What changes a hold other than by acquire and release: downgrade, steal, and the record that is left by a dead holder.
// (From shared to exclusive: upgrade.h.) The steps and the argument are in protocol.h.
#pragma once

#include "protocol.h"

namespace proclock {

// Exclusive to shared, and nobody in between: the change of generation of a recovery, made by the holder itself.
template <class P>
Status Arena<P>::downgrade(const SlotRef& ref) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint64_t held = ref.slot->word.load(std::memory_order_relaxed);
  if (!holds(held, Mode::kExclusive) || tag_of(held) != ref.tag) return Status::kNotHeld;
  uint32_t fresh;
  const Status status = pick_storage(latched, ref.lock_index, &fresh);
  if (!ok(status)) return status;
  Storage<P>& storage = at(storages_, fresh);
  ref.lock->gate.fetch_or(kGateRecovering, std::memory_order_seq_cst);  // V1
  freeze(latched, ref.lock_index, storage_of(held));                    // V2
  P::init(&storage.rwlock);                                             // V3
  P::try_lock(&storage.rwlock, Mode::kShared);
  // What was torn is repaired, or this holder would not let others see it.
  ref.lock->abandoned.fetch_and(~kMarkAbandoned, std::memory_order_relaxed);
  ref.slot->word.store(slot_word(Phase::kHeld, Mode::kShared, fresh, ref.tag), std::memory_order_seq_cst);
  set_gate(*ref.lock, fresh);  // V5
  // The old storage goes with its write lock on: it is initialised before it is used again.
  retire_storage(latched, ref.lock_index, storage_of(held));
  if (get(ref.lock->queue_head) != 0) poke_front(latched, ref.lock_index);
  return latched.status();
}

// Takes the lock from whoever holds it, for a slot that is idle and not in the queue. Those that wait go on waiting.
template <class P>
Status Arena<P>::steal(const SlotRef& ref, uint64_t* token) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Lock<P>& entry = *ref.lock;
  // S0. A dead holder is not robbed: its end is to be reported.
  look_latched(latched, ref.lock_index);
  Status status = Status::kOk;
  const bool recovers = is_recovering(entry.gate.load(std::memory_order_relaxed));
  if (recovers) status = recover_lock(latched, ref.lock_index);
  uint32_t fresh;
  if (ok(status)) status = pick_storage(latched, ref.lock_index, &fresh);
  if (!ok(status)) {
    // No theft, so no release that pokes: whoever waited for the repair has to know that it is over.
    if (recovers && get(entry.queue_head) != 0) poke_front(latched, ref.lock_index);
    return status;
  }
  Storage<P>& storage = at(storages_, fresh);
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));  // S1
  freeze(latched, ref.lock_index, current);                                                              // S2
  // S3. seq_cst: against R1, A6 and E1, the first decides. Who has left since S0 is not robbed either.
  P::init(&storage.rwlock);
  std::vector<uint32_t> robbed;
  each_slot(entry.slots_head, kByLock, [&](uint32_t index, Slot<P>& other) {
    uint64_t word = other.word.load(std::memory_order_seq_cst);
    while (is_held(word) &&
           !other.word.compare_exchange_weak(word, stolen_word(word), std::memory_order_seq_cst)) {
    }
    if (is_held(word)) robbed.push_back(index);
    if (is_left(word) && mode_of(word) == Mode::kExclusive && storage_of(word) == current)
      record_abandoned(entry, other, word);
    return true;
  });
  for (const uint32_t index : robbed) end_upgrade(latched, index);
  ref.slot->since.store(bits_of(P::wall_ms()), std::memory_order_relaxed);
  take_over(latched, ref, current, fresh, token);
  for (const uint32_t index : robbed) ring(latched, index);
  return latched.status();
}

// The end of S3, S4 and S5; U6 to U8. Nobody holds but by our own slot, and nobody comes to hold: makes it the exclusive
// holder, by a storage that nobody refers to.
template <class P>
void Arena<P>::take_over(const Latched& latched, const SlotRef& ref, uint32_t current, uint32_t fresh,
                         uint64_t* token) {
  Lock<P>& entry = *ref.lock;
  P::try_lock(&at(storages_, fresh).rwlock, Mode::kExclusive);
  *token = entry.token.fetch_add(1, std::memory_order_acq_rel) + 1;
  entry.holder.store(ref.slot_index, std::memory_order_relaxed);
  const uint64_t trying = slot_word(Phase::kTrying, Mode::kExclusive, fresh, ref.tag);
  ref.slot->word.store(trying, std::memory_order_seq_cst);
  set_gate(entry, fresh);  // S4, U7
  // S5, U8. After the gate, because: a death before it leaves a lock that nobody held, one after it an abandoned hold.
  ref.slot->word.store(with_phase(trying, Phase::kHeld), std::memory_order_seq_cst);
  retire_storage(latched, ref.lock_index, current);
}

// By a holder that comes to its end. Behind the latch, since it may be robbed at any moment.
template <class P>
Status Arena<P>::finish(const SlotRef& ref, Finished what) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint64_t word = ref.slot->word.load(std::memory_order_relaxed);
  // A repair is the exclusive holder's; whoever has flown may have downgraded since.
  const bool holds_so = what == Finished::kRepair ? holds(word, Mode::kExclusive) : is_held(word);
  if (!holds_so || tag_of(word) != ref.tag) return Status::kNotHeld;
  if (what == Finished::kRepair) ref.lock->abandoned.fetch_and(~kMarkAbandoned, std::memory_order_relaxed);
  if (what == Finished::kFlight) ref.lock->abandoned.fetch_add(kMarkFlight, std::memory_order_relaxed);
  return latched.status();
}

// V4
template <class P>
void Arena<P>::record_abandoned(Lock<P>& entry, const Slot<P>& holder, uint64_t word) {
  const Process<P>* owner = find(processes_, owner_of(word));
  const int32_t pid = owner == nullptr ? 0 : owner->pid.load(std::memory_order_relaxed);
  entry.abandoned_pid.store(pid, std::memory_order_relaxed);
  entry.abandoned_thread.store(get(holder.thread), std::memory_order_relaxed);
  entry.abandoned_since.store(holder.since.load(std::memory_order_relaxed), std::memory_order_relaxed);
  entry.abandoned_token.store(entry.token.load(std::memory_order_relaxed), std::memory_order_relaxed);
  // Ordered for its readers by the lock itself: they hold it.
  entry.abandoned.fetch_or(kMarkAbandoned, std::memory_order_relaxed);
}

template <class P>
AbandonedInfo Arena<P>::abandoned(const SlotRef& ref) const {
  return mark_of(*ref.lock);
}

template <class P>
AbandonedInfo Arena<P>::mark_of(const Lock<P>& entry) {
  AbandonedInfo info;
  info.pid = entry.abandoned_pid.load(std::memory_order_relaxed);
  info.thread = entry.abandoned_thread.load(std::memory_order_relaxed);
  info.since_ms = double_of(entry.abandoned_since.load(std::memory_order_relaxed));
  info.token = entry.abandoned_token.load(std::memory_order_relaxed);
  return info;
}

}  // namespace proclock
