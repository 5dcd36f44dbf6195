// After a death.
//
// A process that is found dead leaves slots, and so does a thread that ends (LEFT). Those that refer to the current storage
// of their lock make that storage doubtful: nobody knows how far the dead one got in A4 or R2. Steps V1 to V5 (protocol.h)
// replace it. Everything else it leaves (places in queues, idle slots) is taken away.
//
// Several that are found dead together are all marked before the first is recovered, so that a lock that a thousand dead
// processes shared is replaced once.
//
// A thread that ends does not wait for the latch. It marks its slots (E1, E2), and then says so at its process's entry (E3).
// Whoever has the latch can recover them: its own process at once, if it gets the latch; a holder or waiter that looks at the
// lock; or the next turn of the detector that comes to this process.
//
// When the latch's *owner* died, see rebuild.h.
#pragma once

#include "wait.h"

namespace proclock {

template <class P>
bool Arena<P>::is_live(uint32_t process_index) {
  return get(process(process_index).state) == static_cast<uint32_t>(ProcessState::kLive);
}

// ---- storages

template <class P>
Status Arena<P>::allocate_storage(uint32_t* index, bool for_recovery) {
  const uint32_t reserved = std::min(get(storages_.meta->reserved), storages_.max);
  const uint32_t at_hand = get(storages_.meta->free_count) + (reserved - std::min(used(storages_), reserved));
  if (!for_recovery && at_hand <= kSpareStorages) {
    const Status status = grow(storages_);
    if (!ok(status)) return status;
  }
  return allocate(storages_, index);
}

// Gives the retired storages of the lock that no slot refers to any more back to the pool.
template <class P>
void Arena<P>::reuse_retired(const Latched&, uint32_t lock_index, bool all) {
  Lock<P>& entry = lock(lock_index);
  uint32_t index = get(entry.retired);
  if (index == 0) return;
  std::vector<uint32_t> referred;
  if (!all) {
    each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
      // acquire, because: whoever stopped to refer to a storage did so after its last access to it.
      const uint64_t word = word_of(other);
      if (refers(word)) referred.push_back(storage_of(word));
      return true;
    });
  }
  set(entry.retired, 0);
  while (index != 0 && !fault_) {
    Storage<P>& storage = at(storages_, index);
    const uint32_t next = get(storage.next);
    if (std::find(referred.begin(), referred.end(), index) == referred.end()) {
      free_entry(storages_, index);
    } else {
      set(storage.next, get(entry.retired));
      set(entry.retired, index);
    }
    index = next;
  }
}

template <class P>
void Arena<P>::retire_storage(const Latched& latched, uint32_t lock_index, uint32_t storage) {
  Lock<P>& entry = lock(lock_index);
  set(at(storages_, storage).next, get(entry.retired));
  set(entry.retired, storage);
  reuse_retired(latched, lock_index, false);
}

// A storage for a new generation of the lock, to which no slot refers (INV-3): free ones are referred to by nobody,
// since a storage leaves its lock for the pool only when reuse_retired() has seen that.
template <class P>
Status Arena<P>::pick_storage(const Latched& latched, uint32_t lock_index, uint32_t* index) {
  reuse_retired(latched, lock_index, false);
  const Status status = allocate_storage(index, true);
  return fault_ ? Status::kCorrupt : status;
}

// ---- one lock

template <class P>
void Arena<P>::set_gate(Lock<P>& entry, uint32_t storage) {
  uint64_t gate = entry.gate.load(std::memory_order_relaxed);
  // release, because: the storage was initialised before this names it; seq_cst for A3.
  while (!entry.gate.compare_exchange_weak(gate, with_storage(gate, storage) & ~kGateRecovering,
                                           std::memory_order_seq_cst)) {
  }
}

// V2. seq_cst: see protocol.h, (2).
template <class P>
void Arena<P>::freeze(const Latched&, uint32_t lock_index, uint32_t storage) {
  each_slot(lock(lock_index).slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    uint64_t word = other.word.load(std::memory_order_seq_cst);
    while (
        phase_of(word) == Phase::kTrying && storage_of(word) == storage && is_live(owner_of(word)) &&
        !other.word.compare_exchange_weak(word, with_phase(word, Phase::kStale), std::memory_order_seq_cst)) {
    }
    return true;
  });
}

// The second half of V3. All live readers, whatever storage they are on: a recovery that died here left some on its own.
template <class P>
void Arena<P>::carry_readers(const Latched&, uint32_t lock_index, uint32_t storage) {
  typename P::RwLock* rwlock = &at(storages_, storage).rwlock;
  each_slot(lock(lock_index).slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    uint64_t word = word_of(other);
    if (!holds(word, Mode::kShared) || is_gone(word)) return true;
    P::try_lock(rwlock, Mode::kShared);
    if (!other.word.compare_exchange_strong(
            word, slot_word(Phase::kHeld, Mode::kShared, storage, tag_of(word)), std::memory_order_seq_cst)) {
      P::unlock(rwlock);  // it is releasing, and unlocks the storage that it held
    }
    return true;
  });
}

// V1 to V5 without the slots of the dead, which the caller frees afterwards.
template <class P>
Status Arena<P>::recover_lock(const Latched& latched, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  if (fault_) return Status::kCorrupt;
  // V1
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  freeze(latched, lock_index, current);  // V2
  // V3
  bool live_writer = false;
  const Slot<P>* dead_writer = nullptr;
  uint64_t dead_word = 0;
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = other.word.load(std::memory_order_seq_cst);
    if ((!is_held(word) && !is_left(word)) || mode_of(word) != Mode::kExclusive) return true;
    if (!is_gone(word)) {
      live_writer = true;
    } else if (storage_of(word) == current) {
      dead_writer = &other;
      dead_word = word;
    }
    return true;
  });
  if (fault_) return Status::kCorrupt;
  uint32_t next = current;
  if (!live_writer) {
    const Status status = pick_storage(latched, lock_index, &next);
    if (!ok(status)) return status;  // stays RECOVERING: nobody gets in, and the next one tries again
    P::init(&at(storages_, next).rwlock);
    carry_readers(latched, lock_index, next);
  }
  // V4
  if (dead_writer != nullptr) record_abandoned(entry, *dead_writer, dead_word);
  set_gate(entry, next);  // V5
  if (next == current) return latched.status();
  // The dead refer to nothing any more: what they left can be used at once, maybe for their next lock. V4 was before
  // this, and a recovery that starts again finds that they are done. Whoever got in after V5, and has left since, is another
  // recovery's.
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = word_of(other);
    const bool left = is_left(word);
    if (!is_gone(word) || (left && storage_of(word) == next)) return true;
    other.word.store(left ? left_word(word, Mode::kShared, 0) : idle_word(word), std::memory_order_relaxed);
    return true;
  });
  retire_storage(latched, lock_index, current);
  return latched.status();
}

// For whoever found RECOVERING. To get the latch is to wait for the repair; it may have found no space, though.
template <class P>
Status Arena<P>::finish_recovery(uint32_t lock_index) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  if (!is_recovering(lock(lock_index).gate.load(std::memory_order_relaxed))) return latched.status();
  const Status status = recover_lock(latched, lock_index);
  if (ok(status) && get(lock(lock_index).queue_head) != 0) poke_front(latched, lock_index);
  return status;
}

// ---- one process

// Sorted, and without those that are there twice.
inline std::vector<uint32_t>& each_once(std::vector<uint32_t>* indices) {
  std::sort(indices->begin(), indices->end());
  indices->erase(std::unique(indices->begin(), indices->end()), indices->end());
  return *indices;
}

// Recovers what the process has left on each of its locks, and unbinds its slots: all, or those of threads that ended. False:
// there is no storage for one of the locks, and what it has left is needed once more.
template <class P>
bool Arena<P>::recover_slots(const Latched& latched, uint32_t process_index, bool left_alone,
                             std::vector<uint32_t>* touched) {
  Process<P>& owner = process(process_index);
  std::vector<uint32_t> gone;
  std::vector<uint32_t> broken;
  each_slot(owner.slots_head, kByProcess, [&](uint32_t index, Slot<P>& left) {
    const uint64_t word = word_of(left);
    if (left_alone && !is_left(word)) return true;
    gone.push_back(index);
    if (!refers(word) && (flags_of(left) & kSlotQueued) == 0) return true;
    const uint32_t lock_index = get(left.lock);
    touched->push_back(lock_index);
    if (refers(word) && storage_of(word) == storage_of(lock(lock_index).gate.load(std::memory_order_relaxed)))
      broken.push_back(lock_index);
    return true;
  });
  // Each lock once, for all that was left on it: beside a live writer its storage stays, and each of them would name it again.
  for (const uint32_t lock_index : each_once(&broken)) {
    if (!ok(recover_lock(latched, lock_index))) return false;
  }
  if (fault_) return false;
  clear_doorbell(latched, owner, left_alone);
  // Those that were looked at above, and no others: a thread may end at any moment, and what it leaves now has not been recovered.
  for (const uint32_t index : gone) {
    if (fault_) return false;
    remove_waiter(latched, index);
    unbind_slot(latched, index);
  }
  return !fault_;
}

// Takes the slots that are about to be unbound off the stack at once: to search it for each would take the square of the time.
template <class P>
void Arena<P>::clear_doorbell(const Latched&, Process<P>& owner, bool left_alone) {
  uint32_t index = get(owner.poked_head);
  Atomic<uint32_t>* link = &owner.poked_head;
  for (uint32_t left = used(slots_); index != 0 && !fault_; left--) {
    Slot<P>& entry = slot(index);
    if (left == 0) fault_ = true;  // more than there are
    if (left_alone && !is_left(word_of(entry))) {
      set(*link, index);
      link = &entry.poked_next;
    } else {
      entry.flags.fetch_and(~kSlotOnDoorbell, std::memory_order_relaxed);
    }
    index = get(entry.poked_next);
  }
  set(*link, 0);
}

// From each lock that the dead were on, once their slots are gone: they may have owed a poke, or swallowed one.
template <class P>
void Arena<P>::poke_touched(const Latched& latched, std::vector<uint32_t>* touched) {
  for (const uint32_t lock_index : each_once(touched)) {
    if (fault_ || get(lock(lock_index).queue_head) == 0) continue;
    front_changed(latched, lock_index);
    poke_again(latched, lock_index);
  }
}

// A lock that could not be recovered needs its dead slots once more: then the entry stays, as dead.
template <class P>
void Arena<P>::recover_process(const Latched& latched, uint32_t process_index,
                               std::vector<uint32_t>* touched) {
  if (!recover_slots(latched, process_index, false, touched)) return;
  Process<P>& dead = process(process_index);
  header_->recoveries.fetch_add(1, std::memory_order_relaxed);
  set(dead.state, static_cast<uint32_t>(ProcessState::kFree));
  free_entry(processes_, process_index);
}

// The mark first: a thread that ends after this sets it again.
template <class P>
void Arena<P>::recover_threads(const Latched& latched, uint32_t process_index,
                               std::vector<uint32_t>* touched) {
  Process<P>& entry = process(process_index);
  // acquire: pairs with E3, whose thread marked its slots before.
  if (fault_ || entry.left.exchange(0, std::memory_order_acquire) == 0) return;
  if (!recover_slots(latched, process_index, true, touched) && !fault_)
    entry.left.fetch_or(1, std::memory_order_relaxed);
}

template <class P>
void Arena<P>::mark_dead(uint32_t process_index) {
  Process<P>& entry = process(process_index);
  if (get(entry.state) == static_cast<uint32_t>(ProcessState::kLive))
    set(entry.state, static_cast<uint32_t>(ProcessState::kDead));
}

// Asks about each, and recovers those that are dead, and what threads of the others have left.
template <class P>
void Arena<P>::check_processes(const Latched& latched, const std::vector<uint32_t>& suspects) {
  for (const uint32_t index : suspects) {
    if (!fault_ && is_found_dead(index)) mark_dead(index);
  }
  std::vector<uint32_t> touched;
  for (const uint32_t index : suspects) {
    if (fault_) return;
    const uint32_t state = get(process(index).state);
    if (state == static_cast<uint32_t>(ProcessState::kDead)) {
      recover_process(latched, index, &touched);
    } else if (state == static_cast<uint32_t>(ProcessState::kLive)) {
      recover_threads(latched, index, &touched);
    }
  }
  poke_touched(latched, &touched);
}

// ---- a thread that ends

// E1 to E3, without the latch. The word is the owner's own, but for recoveries and thieves: against them the CAS decides.
template <class P>
void Arena<P>::leave(const SlotRef& ref) {
  Slot<P>& slot = *ref.slot;
  waits_no_more(ref);
  uint64_t word = slot.word.load(std::memory_order_acquire);
  for (;;) {
    if (tag_of(word) != ref.tag || is_left(word)) return;
    if (holds(word, Mode::kShared)) {
      // R1 and R2, as in release().
      if (!slot.word.compare_exchange_weak(word, with_phase(word, Phase::kReleasing),
                                           std::memory_order_seq_cst, std::memory_order_acquire)) {
        continue;
      }
      Storage<P>* storage = find(storages_, storage_of(word));
      if (storage != nullptr) P::unlock(&storage->rwlock);
      word = with_phase(word, Phase::kReleasing);
      P::fence_after_unlock();
    }
    // What was released owes no more than the poke.
    const bool owes =
        phase_of(word) == Phase::kStale ||
        (phase_of(word) == Phase::kReleasing && wants_poke(ref.lock->gate.load(std::memory_order_relaxed)));
    const uint64_t left = holds(word, Mode::kExclusive)
                              ? left_word(word, Mode::kExclusive, storage_of(word))
                              : left_word(word, Mode::kShared, owes ? storage_of(word) : 0);
    // release, because: what its owner did is over; seq_cst against V3 and S3.
    if (slot.word.compare_exchange_weak(word, left, std::memory_order_seq_cst, std::memory_order_acquire))
      break;
  }
  // E3. release: pairs with recover_threads(). A read-modify-write, as is every other change of this word that others may not
  // have seen: a store would end what another thread of ours has released by it.
  Process<P>* own = entry_of(self_);
  if (own == nullptr) return;
  own->left.fetch_or(1, std::memory_order_release);
  set_wanted(self_);
}

template <class P>
Status Arena<P>::recover_left() {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  std::vector<uint32_t> touched;
  recover_threads(latched, self_, &touched);
  poke_touched(latched, &touched);
  return latched.status();
}

}  // namespace proclock
