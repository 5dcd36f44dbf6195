// After a death.
//
// A process that is found dead leaves slots. Those that refer to the current storage of their lock make that storage
// doubtful: nobody knows how far the dead one got in A4 or R2. Steps V1 to V5 (protocol.h) replace it. Everything else
// it leaves (places in queues, idle slots) is taken away.
//
// When the guard's *owner* died, whatever lies behind the guard may be half changed. Then nothing derived is believed:
// one routine, rebuild(), makes all of it anew from the facts (which entries are named, which slots are bound and
// what their words, flags and tickets say), and then recovers whoever is dead. It may die as well: the next owner starts
// it from the beginning.
#pragma once

#include "arena.h"

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
void Arena<P>::reuse_retired(const Guard&, uint32_t lock_index, bool all) {
  Lock<P>& entry = lock(lock_index);
  if (get(entry.retired) == 0) return;
  std::vector<uint32_t> referred;
  if (!all) {
    each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
      // acquire, because: whoever stopped to refer to a storage did so after its last access to it.
      const uint64_t word = other.word.load(std::memory_order_acquire);
      if (refers(word)) referred.push_back(storage_of(word));
      return true;
    });
  }
  uint32_t index = get(entry.retired);
  set(entry.retired, 0);
  for (uint32_t steps = 0; index != 0 && !fault_; steps++) {
    Storage<P>& storage = at(storages_, index);
    const uint32_t next = get(storage.next);
    if (std::find(referred.begin(), referred.end(), index) == referred.end()) {
      free_entry(storages_, index);
    } else {
      set(storage.next, get(entry.retired));
      set(entry.retired, index);
    }
    index = next;
    if (steps > kStoragesMax) fault_ = true;
  }
}

template <class P>
void Arena<P>::retire_storage(const Guard& guard, uint32_t lock_index, uint32_t storage) {
  Lock<P>& entry = lock(lock_index);
  set(at(storages_, storage).next, get(entry.retired));
  set(entry.retired, storage);
  reuse_retired(guard, lock_index, false);
}

// A storage for a new generation of the lock, to which no slot refers (INV-3): free ones are referred to by nobody,
// since a storage leaves its lock for the pool only when reuse_retired() has seen that.
template <class P>
Status Arena<P>::pick_storage(const Guard& guard, uint32_t lock_index, uint32_t* index) {
  reuse_retired(guard, lock_index, false);
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
void Arena<P>::freeze(const Guard&, uint32_t lock_index, uint32_t storage) {
  each_slot(lock(lock_index).slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    uint64_t word = other.word.load(std::memory_order_seq_cst);
    while (
        phase_of(word) == Phase::kTrying && storage_of(word) == storage &&
        is_live(other.process.load(std::memory_order_relaxed)) &&
        !other.word.compare_exchange_weak(word, with_phase(word, Phase::kStale), std::memory_order_seq_cst)) {
    }
    return true;
  });
}

// The second half of V3. All live readers, whatever storage they are on: a recovery that died here left some on its own.
template <class P>
void Arena<P>::carry_readers(const Guard&, uint32_t lock_index, uint32_t storage) {
  typename P::RwLock* rwlock = &at(storages_, storage).rwlock;
  each_slot(lock(lock_index).slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    uint64_t word = other.word.load(std::memory_order_acquire);
    if (!holds(word, Mode::kShared) || !is_live(other.process.load(std::memory_order_relaxed))) return true;
    P::try_lock(rwlock, Mode::kShared);
    if (!other.word.compare_exchange_strong(word, slot_word(Phase::kHeld, Mode::kShared, storage),
                                            std::memory_order_seq_cst)) {
      P::unlock(rwlock);  // it is releasing, and unlocks the storage that it held
    }
    return true;
  });
}

// V1 to V5 without the slots of the dead, which the caller frees afterwards.
template <class P>
Status Arena<P>::recover_lock(const Guard& guard, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  if (fault_) return Status::kCorrupt;
  // V1
  const uint32_t current = storage_of(entry.gate.fetch_or(kGateRecovering, std::memory_order_seq_cst));
  freeze(guard, lock_index, current);  // V2
  // V3
  bool live_writer = false;
  Slot<P>* dead_writer = nullptr;
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = other.word.load(std::memory_order_seq_cst);
    if (!holds(word, Mode::kExclusive)) return true;
    if (is_live(other.process.load(std::memory_order_relaxed))) {
      live_writer = true;
    } else if (storage_of(word) == current) {
      dead_writer = &other;
    }
    return true;
  });
  if (fault_) return Status::kCorrupt;
  uint32_t next = current;
  if (!live_writer) {
    const Status status = pick_storage(guard, lock_index, &next);
    if (!ok(status)) return status;  // stays RECOVERING: nobody gets in, and the next one tries again
    P::init(&at(storages_, next).rwlock);
    carry_readers(guard, lock_index, next);
  }
  // V4
  if (dead_writer != nullptr) {
    SlotRef dead;
    dead.slot = dead_writer;
    dead.lock = &entry;
    record_abandoned(dead);
  }
  set_gate(entry, next);  // V5
  if (next == current) return guard.status();
  // The dead refer to nothing any more: what they left can be used at once, maybe for their next lock. V4 was before
  // this, and a recovery that starts again finds that they are done.
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    if (!is_live(other.process.load(std::memory_order_relaxed))) {
      other.word.store(kIdleWord, std::memory_order_relaxed);
    }
    return true;
  });
  retire_storage(guard, lock_index, current);
  return guard.status();
}

// For whoever found RECOVERING. To get the guard is to wait for the repair; it may have found no space, though.
template <class P>
Status Arena<P>::finish_recovery(uint32_t lock_index) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  if (!is_recovering(lock(lock_index).gate.load(std::memory_order_relaxed))) return guard.status();
  const Status status = recover_lock(guard, lock_index);
  if (ok(status) && get(lock(lock_index).queue_head) != 0) poke_front(guard, lock_index);
  return status;
}

// ---- one process

template <class P>
void Arena<P>::recover_process(const Guard& guard, uint32_t process_index) {
  Process<P>& dead = process(process_index);
  set(dead.state, static_cast<uint32_t>(ProcessState::kDead));
  std::vector<uint32_t> touched;
  bool all_recovered = true;
  each_slot(dead.slots_head, kByProcess, [&](uint32_t, Slot<P>& left) {
    const uint32_t lock_index = get(left.lock);
    const uint64_t word = left.word.load(std::memory_order_acquire);
    const bool queued = (left.flags.load(std::memory_order_relaxed) & kSlotQueued) != 0;
    if (!refers(word) && !queued) return true;
    touched.push_back(lock_index);
    if (refers(word) &&
        storage_of(word) == storage_of(lock(lock_index).gate.load(std::memory_order_relaxed))) {
      all_recovered = ok(recover_lock(guard, lock_index)) && all_recovered;
    }
    return true;
  });
  // A lock that could not be recovered needs its dead slots once more: the entry stays, as dead.
  if (!all_recovered || fault_) return;
  each_slot(dead.slots_head, kByProcess, [&](uint32_t index, Slot<P>&) {
    remove_waiter(guard, index);
    unbind_slot(guard, index);
    return true;
  });
  // After the slots are gone, and from each lock that they were on: the dead one may have owed a poke, or swallowed one.
  for (const uint32_t lock_index : touched) {
    if (fault_ || get(lock(lock_index).queue_head) == 0) continue;
    front_changed(guard, lock_index);
    poke_again(guard, lock_index);
  }
  header_->recoveries.fetch_add(1, std::memory_order_relaxed);
  set(dead.poked_head, 0);
  set(dead.state, static_cast<uint32_t>(ProcessState::kFree));
  free_entry(processes_, process_index);
}

// True if the process was dead; it is recovered then.
template <class P>
bool Arena<P>::check_process(const Guard& guard, uint32_t process_index) {
  if (process_index == self_) return false;
  Process<P>& entry = process(process_index);
  const uint32_t state = get(entry.state);
  if (fault_ || state == static_cast<uint32_t>(ProcessState::kFree)) return false;
  ProcessIdentity identity;
  if (state == static_cast<uint32_t>(ProcessState::kLive)) {
    process_identity(process_index, &identity);
    if (memory_.liveness(process_index, identity) == Liveness::kAlive) return false;
  }
  recover_process(guard, process_index);
  return true;
}

template <class P>
Status Arena<P>::recover_if_dead(uint32_t process_index) {
  Guard guard(*this);
  if (ok(guard.status())) check_process(guard, process_index);
  return guard.status();
}

// Does the slot hold, wait, or do either at this moment?
template <class P>
bool Arena<P>::is_involved(const Slot<P>& slot) {
  return refers(slot.word.load(std::memory_order_relaxed)) ||
         (slot.flags.load(std::memory_order_relaxed) & kSlotQueued) != 0;
}

// Does the slot wait, and not hold? (One that was granted may still have its place in the queue.)
template <class P>
bool Arena<P>::is_pending(const Slot<P>& slot) {
  const uint16_t flags = slot.flags.load(std::memory_order_relaxed);
  return (flags & (kSlotQueued | kSlotGranted)) == kSlotQueued &&
         !is_held(slot.word.load(std::memory_order_acquire));
}

// Asks about the processes that hold, or wait for, this lock; first about its last exclusive holder. Bounded: a lock that
// very many share is looked at from another place each time.
template <class P>
void Arena<P>::look_guarded(const Guard& guard, uint32_t lock_index) {
  Lock<P>& entry = lock(lock_index);
  std::vector<uint32_t> suspects;
  const auto suspect = [&](const Slot<P>& other) {
    const uint32_t owner = other.process.load(std::memory_order_relaxed);
    if (is_involved(other) && owner != self_ &&
        std::find(suspects.begin(), suspects.end(), owner) == suspects.end()) {
      suspects.push_back(owner);
    }
  };
  const Slot<P>* holder = find(slots_, get(entry.holder));
  if (holder != nullptr && get(holder->lock) == lock_index) suspect(*holder);
  // On from the slot at which the last look ended, unless that serves another lock by now.
  const Slot<P>* last = find(slots_, look_cursor_);
  const bool goes_on = last != nullptr && get(last->lock) == lock_index;
  look_cursor_ = 0;
  uint32_t seen = 0;
  each_slot(goes_on ? last->lock_next : entry.slots_head, kByLock, [&](uint32_t index, Slot<P>& other) {
    suspect(other);
    if (++seen < kLookSlotsMax && suspects.size() < kLookProcessesMax) return true;
    look_cursor_ = index;
    return false;
  });
  for (const uint32_t process_index : suspects) check_process(guard, process_index);
}

// For somebody who was refused. A lock that its last exclusive holder still holds, alive, is refused by nobody else: then
// that one is all there is to look at, however many wait.
template <class P>
Status Arena<P>::look(uint32_t lock_index) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  const Slot<P>* holder = find(slots_, get(lock(lock_index).holder));
  const bool is_exclusive = holder != nullptr && get(holder->lock) == lock_index &&
                            holds(holder->word.load(std::memory_order_acquire), Mode::kExclusive);
  if (is_exclusive && is_alive(holder->process.load(std::memory_order_relaxed))) return guard.status();
  look_guarded(guard, lock_index);
  return guard.status();
}

// ---- what query() shows

template <class P>
HolderInfo Arena<P>::describe(const Slot<P>& slot, bool pending) const {
  HolderInfo info;
  const uint64_t word = slot.word.load(std::memory_order_acquire);
  const uint16_t flags = slot.flags.load(std::memory_order_relaxed);
  info.lock = get(slot.lock);
  info.pending = pending;
  info.mode = pending ? ((flags & kSlotExclusive) != 0 ? Mode::kExclusive : Mode::kShared) : mode_of(word);
  info.thread = get(slot.thread);
  info.process = slot.process.load(std::memory_order_relaxed);
  info.ticket = get(slot.ticket);
  const double since_ms = double_of(slot.since.load(std::memory_order_relaxed));
  info.since_ms =
      since_ms >= 0 ? since_ms : 0;  // what is no number has no order, and lists of these are sorted
  process_identity(info.process, &info.identity);
  return info;
}

template <class P>
Status Arena<P>::snapshot(uint32_t lock_index, std::vector<HolderInfo>* infos) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  look_guarded(guard, lock_index);
  Lock<P>& entry = lock(lock_index);
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    if (is_held(other.word.load(std::memory_order_acquire))) infos->push_back(describe(other, false));
    return true;
  });
  each_slot(entry.queue_head, kByQueue, [&](uint32_t, Slot<P>& other) {
    if (is_pending(other)) infos->push_back(describe(other, true));
    return true;
  });
  return guard.status();
}

// All holds and waits of the namespace: holds by age, then waits in queue order. One pass over the slots, in the order in
// which they lie in memory.
template <class P>
Status Arena<P>::snapshot_all(std::vector<HolderInfo>* infos, std::unordered_map<uint32_t, LockName>* names) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  std::vector<bool> suspects(used(processes_) + 1);
  for (uint32_t index = 1; index <= used(slots_); index++) {
    const Slot<P>& other = slot(index);
    const uint32_t owner = other.process.load(std::memory_order_relaxed);
    if (get(other.lock) != 0 && owner < suspects.size() && is_involved(other)) suspects[owner] = true;
  }
  for (uint32_t index = 1; index < suspects.size(); index++) {
    if (suspects[index]) check_process(guard, index);
  }
  size_t name_bytes = 0;
  for (uint32_t index = 1; index <= used(slots_) && !fault_; index++) {
    const Slot<P>& other = slot(index);
    if (get(other.lock) == 0 || !is_involved(other)) continue;
    const bool pending = is_pending(other);
    if (!pending && !is_held(other.word.load(std::memory_order_acquire))) continue;
    LockName name;
    if (names->count(get(other.lock)) == 0 && read_name(guard, get(other.lock), &name)) {
      // Each extent belongs to one name: together they are no longer than the tables.
      name_bytes += name.bytes.size();
      if (name_bytes > names_bytes_max()) fault_ = true;
      (*names)[get(other.lock)] = std::move(name);
    }
    infos->push_back(describe(other, pending));
  }
  const uint32_t newest = get(header_->ticket);
  std::sort(infos->begin(), infos->end(), [newest](const HolderInfo& a, const HolderInfo& b) {
    if (a.pending != b.pending) return b.pending;
    return a.pending ? newest - a.ticket > newest - b.ticket : a.since_ms < b.since_ms;
  });
  return guard.status();
}

// ---- everything derived, anew

template <class P>
void Arena<P>::rebuild(const Guard& guard) {
  header_->rebuilds.fetch_add(1, std::memory_order_relaxed);
  for (TableMeta<P>* meta :
       {&header_->processes, &header_->locks, &header_->storages, &header_->slots, &header_->extents}) {
    set(meta->free_head, 0);
    set(meta->free_count, 0);
  }
  for (uint32_t index = 1; index <= used(processes_); index++) {
    Process<P>& entry = process(index);
    set(entry.slots_head, 0);
    set(entry.poked_head, 0);
    if (get(entry.state) == static_cast<uint32_t>(ProcessState::kFree)) free_entry(processes_, index);
  }
  rebuild_locks(guard);
  rebuild_slots(guard);
  rebuild_storages(guard);
  for (uint32_t index = 1; index <= used(locks_) && !fault_; index++) {
    if ((get(lock(index).name_bytes) & kNameUsed) == 0) continue;
    if (get(lock(index).slots_head) == 0) lock_unused(guard, index);
    front_changed(guard, index);
  }
  // Whoever was robbed may not have been told.
  for (uint32_t index = 1; index <= used(slots_) && !fault_; index++) {
    if (phase_of(slot(index).word.load(std::memory_order_relaxed)) == Phase::kStolen) ring(guard, index);
  }
  // Now that everything can be walked: finish what was under way, and find who died.
  for (uint32_t index = 1; index <= used(processes_) && !fault_; index++) check_process(guard, index);
  for (uint32_t index = 1; index <= used(locks_) && !fault_; index++) {
    Lock<P>& entry = lock(index);
    if ((get(entry.name_bytes) & kNameUsed) == 0) continue;
    if (is_recovering(entry.gate.load(std::memory_order_relaxed))) recover_lock(guard, index);
    if (get(entry.queue_head) != 0) poke_again(guard, index);
  }
}

// The index, the lists of the lock entries, and which entries and extents are free.
template <class P>
void Arena<P>::rebuild_locks(const Guard&) {
  TableMeta<P>& buckets = header_->buckets;
  set(buckets.used, std::max(std::min({get(buckets.used), get(buckets.reserved), kBucketsMax}), kBucketsMin));
  for (uint32_t index = 0; index < get(buckets.used); index++) set(bucket(index), 0);
  set(header_->unused_head, 0);
  set(header_->unused_tail, 0);
  std::vector<bool> in_name(used(extents_) + 1);
  for (uint32_t index = 1; index <= used(locks_) && !fault_; index++) {
    Lock<P>& entry = lock(index);
    for (Atomic<uint32_t>* field :
         {&entry.queue_head, &entry.queue_tail, &entry.queue_fair, &entry.slots_head, &entry.unused_next,
          &entry.unused_prev, &entry.retired}) {
      set(*field, 0);
    }
    if ((get(entry.name_bytes) & kNameUsed) == 0) {
      free_entry(locks_, index);
      continue;
    }
    Atomic<uint32_t>& home = bucket(bucket_of(get(entry.hash)));
    set(entry.next_in_bucket, get(home));
    set(home, index);
    uint32_t extent = get(entry.name_rest);
    while (extent != 0 && !fault_) {
      if (extent >= in_name.size() || in_name[extent]) {
        fault_ = true;
        break;
      }
      in_name[extent] = true;
      extent = get(at(extents_, extent).next);
    }
  }
  for (uint32_t index = 1; index < in_name.size() && !fault_; index++) {
    if (!in_name[index]) free_entry(extents_, index);
  }
}

// The lists of slots, and the queues in the order of their tickets.
template <class P>
void Arena<P>::rebuild_slots(const Guard& guard) {
  struct Place {
    uint32_t lock, age, slot;
    bool operator<(const Place& other) const {
      return lock != other.lock ? lock < other.lock : age > other.age;
    }
  };
  std::vector<Place> waiting;
  const uint32_t newest = get(header_->ticket);
  for (uint32_t index = 1; index <= used(slots_) && !fault_; index++) {
    Slot<P>& entry = slot(index);
    const uint32_t lock_index = get(entry.lock);
    Process<P>& owner = process(entry.process.load(std::memory_order_relaxed));
    if (lock_index == 0 || get(owner.state) == static_cast<uint32_t>(ProcessState::kFree)) {
      fault_ = fault_ && lock_index != 0;  // a free slot may name no process
      set(entry.lock, 0);
      entry.word.store(0, std::memory_order_relaxed);
      free_entry(slots_, index);
      continue;
    }
    const uint16_t flags = entry.flags.load(std::memory_order_relaxed);
    if ((flags & kSlotOnDoorbell) != 0) put_on_doorbell(guard, index);
    push_slot(lock(lock_index).slots_head, kByLock, index);
    push_slot(owner.slots_head, kByProcess, index);
    if ((flags & kSlotQueued) != 0) waiting.push_back({lock_index, newest - get(entry.ticket), index});
  }
  std::sort(waiting.begin(), waiting.end());
  for (const Place& place : waiting) {
    Lock<P>& of = lock(place.lock);
    Slot<P>& entry = slot(place.slot);
    const uint32_t last = get(of.queue_tail);
    set(entry.queue_prev, last);
    set(entry.queue_next, 0);
    set(last == 0 ? of.queue_head : slot(last).queue_next, place.slot);
    set(of.queue_tail, place.slot);
    if ((entry.flags.load(std::memory_order_relaxed) & kSlotFair) != 0)
      set(of.queue_fair, get(of.queue_fair) + 1);
  }
  for (uint32_t index = 1; index <= used(locks_) && !fault_; index++) {
    Lock<P>& entry = lock(index);
    entry.gate.fetch_and(~(kGateQueued | kGatePoked), std::memory_order_seq_cst);
    if (get(entry.queue_head) != 0) entry.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);
  }
}

// A storage is a lock's current one, or retired since a slot of that lock refers to it, or free.
template <class P>
void Arena<P>::rebuild_storages(const Guard&) {
  std::vector<bool> taken(used(storages_) + 1);
  const auto take = [&](uint32_t storage) {
    if (storage == 0 || storage >= taken.size()) fault_ = true;
    if (fault_ || taken[storage]) return false;
    taken[storage] = true;
    return true;
  };
  for (uint32_t index = 1; index <= used(locks_) && !fault_; index++) {
    const Lock<P>& entry = lock(index);
    if ((get(entry.name_bytes) & kNameUsed) != 0 &&
        !take(storage_of(entry.gate.load(std::memory_order_relaxed)))) {
      fault_ = true;  // two locks on one storage
    }
  }
  for (uint32_t index = 1; index <= used(slots_) && !fault_; index++) {
    const Slot<P>& entry = slot(index);
    const uint64_t word = entry.word.load(std::memory_order_acquire);
    if (get(entry.lock) == 0 || !refers(word) || !take(storage_of(word))) continue;
    Lock<P>& of = lock(get(entry.lock));
    set(at(storages_, storage_of(word)).next, get(of.retired));
    set(of.retired, storage_of(word));
  }
  for (uint32_t index = 1; index < taken.size() && !fault_; index++) {
    if (!taken[index]) free_entry(storages_, index);
  }
}

}  // namespace proclock
