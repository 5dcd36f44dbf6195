// When the latch's owner died, whatever lies behind the latch may be half changed. Then nothing derived is believed: all of it
// is made anew from the facts (which entries are named, which slots are bound and what their words, flags and tickets say),
// and then whoever is dead is recovered. A rebuild may die as well: the next owner starts it from the beginning, since the latch
// says DIRTY until one is through. One that has no memory to work with leaves it so. One that finds the facts impossible
// leaves CORRUPT, and nobody ever uses what it left half made.
#pragma once

#include "detect.h"

namespace proclock {

// Flags for the entries of a table, from 1 on, or not: there may be no memory for them.
class Marks {
 public:
  explicit Marks(uint32_t entries)
      : bits_(new (std::nothrow) uint64_t[entries / 64 + 1]()), entries_(entries) {}
  explicit operator bool() const { return bits_ != nullptr; }
  bool covers(uint32_t index) const { return index != 0 && index <= entries_; }
  bool has(uint32_t index) const { return (bits_[index / 64] >> index % 64 & 1) != 0; }
  void set(uint32_t index) { bits_[index / 64] |= uint64_t{1} << index % 64; }
  uint32_t entries() const { return entries_; }

 private:
  std::unique_ptr<uint64_t[]> bits_;
  const uint32_t entries_;
};

template <class P>
void Arena<P>::rebuild(const Latched& latched) {
  header_->rebuilds.fetch_add(1, std::memory_order_relaxed);
  incomplete_ = !rebuild_tables(latched) && !fault_;
}

template <class P>
bool Arena<P>::rebuild_tables(const Latched& latched) {
  for (TableMeta<P>* meta :
       {&header_->processes, &header_->locks, &header_->storages, &header_->slots, &header_->extents}) {
    set(meta->free_head, 0);
    set(meta->free_count, 0);
  }
  rebuild_processes();
  if (!rebuild_locks() || !rebuild_slots(latched) || !rebuild_queues() || !rebuild_storages()) return false;
  rebuild_fronts(latched);
  // Now that everything can be walked: finish what was under way, and find who died.
  const uint32_t processes = used(processes_);
  std::vector<uint32_t> all(processes);
  for (uint32_t n = 0; n < processes; n++) all[n] = n + 1;
  check_processes(latched, all);
  const uint32_t locks = used(locks_);
  for (uint32_t index = 1; index <= locks && !fault_; index++) {
    Lock<P>& entry = lock(index);
    if ((get(entry.name_bytes) & kNameUsed) == 0) continue;
    if (is_recovering(entry.gate.load(std::memory_order_relaxed))) recover_lock(latched, index);
    if (get(entry.queue_head) != 0) poke_again(latched, index);
  }
  return true;
}

template <class P>
void Arena<P>::rebuild_processes() {
  const uint32_t count = used(processes_);
  for (uint32_t index = 1; index <= count && !fault_; index++) {
    Process<P>& entry = process(index);
    set(entry.slots_head, 0);
    set(entry.poked_head, 0);
    if (get(entry.state) == static_cast<uint32_t>(ProcessState::kFree)) {
      free_entry(processes_, index);
    } else {
      entry.left.fetch_or(1, std::memory_order_relaxed);  // looked for, whether it was said or not
    }
  }
}

// The index, the lists of the lock entries, and which entries and extents are free.
template <class P>
bool Arena<P>::rebuild_locks() {
  const uint32_t buckets = buckets_in_use();
  if (fault_) return true;
  set(header_->buckets.used, buckets);
  for (uint32_t index = 0; index < buckets; index++) set(bucket(index), 0);
  for (Atomic<uint32_t>* end :
       {&header_->unused_head, &header_->unused_tail, &header_->marked_head, &header_->marked_tail}) {
    set(*end, 0);
  }
  Marks in_name(used(extents_));
  if (!in_name) return false;
  const uint32_t count = used(locks_);
  for (uint32_t index = 1; index <= count && !fault_; index++) {
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
    Atomic<uint32_t>& home = bucket(bucket_of(get(entry.hash), buckets));
    set(entry.next_in_bucket, get(home));
    set(home, index);
    for (uint32_t extent = get(entry.name_rest); extent != 0 && !fault_;) {
      if (!in_name.covers(extent) || in_name.has(extent)) {
        fault_ = true;
        break;
      }
      in_name.set(extent);
      extent = get(at(extents_, extent).next);
    }
  }
  for (uint32_t index = 1; index <= in_name.entries() && !fault_; index++) {
    if (!in_name.has(index)) free_entry(extents_, index);
  }
  return true;
}

// The lists of slots.
template <class P>
bool Arena<P>::rebuild_slots(const Latched& latched) {
  const uint32_t count = used(slots_);
  for (uint32_t index = 1; index <= count && !fault_; index++) {
    Slot<P>& entry = slot(index);
    const uint32_t lock_index = get(entry.lock);
    const uint64_t word = word_of(entry);
    const uint32_t owner = owner_of(word);
    const bool owned = owner != 0 && lock_index != 0 &&
                       get(process(owner).state) != static_cast<uint32_t>(ProcessState::kFree);
    if (!owned) {
      set(entry.lock, 0);
      entry.word.store(free_word(word), std::memory_order_relaxed);
      free_entry(slots_, index);
      continue;
    }
    if ((flags_of(entry) & kSlotOnDoorbell) != 0) {
      put_on_doorbell(latched, index);
      ring(latched, index);  // whoever put it there may have died before the bell rang
    }
    // An upgrade ends with the shared hold that it is of, and maybe nobody came to take it out of the queue.
    if ((flags_of(entry) & kSlotUpgrading) != 0 && !holds(word, Mode::kShared))
      entry.flags.fetch_and(kSlotOnDoorbell, std::memory_order_relaxed);
    push_slot(lock(lock_index).slots_head, kByLock, index);
    push_slot(process(owner).slots_head, kByProcess, index);
  }
  return true;
}

// The queues, in the order of their tickets.
template <class P>
bool Arena<P>::rebuild_queues() {
  struct Place {
    uint32_t lock, age, slot;
    bool operator<(const Place& other) const {
      return lock != other.lock ? lock < other.lock : age > other.age;
    }
  };
  const uint32_t count = used(slots_);
  const auto waits = [&](uint32_t index) {
    const Slot<P>& entry = slot(index);
    return get(entry.lock) != 0 && (flags_of(entry) & kSlotQueued) != 0;
  };
  size_t waiting = 0;
  for (uint32_t index = 1; index <= count && !fault_; index++) waiting += waits(index);
  std::unique_ptr<Place[]> places(new (std::nothrow) Place[waiting + 1]);
  if (places == nullptr) return false;
  const uint32_t newest = get(header_->ticket);
  size_t found = 0;
  for (uint32_t index = 1; index <= count && found < waiting && !fault_; index++) {
    if (!waits(index)) continue;
    const Slot<P>& entry = slot(index);
    places[found++] = {get(entry.lock), newest - get(entry.ticket), index};
  }
  std::sort(places.get(), places.get() + found);
  for (size_t n = 0; n < found && !fault_; n++) {
    Lock<P>& of = lock(places[n].lock);
    Slot<P>& entry = slot(places[n].slot);
    const uint32_t last = get(of.queue_tail);
    set(entry.queue_prev, last);
    set(entry.queue_next, 0);
    set(last == 0 ? of.queue_head : slot(last).queue_next, places[n].slot);
    set(of.queue_tail, places[n].slot);
    if ((flags_of(entry) & kSlotFair) != 0) add(of.queue_fair, 1);
  }
  const uint32_t locks = used(locks_);
  for (uint32_t index = 1; index <= locks && !fault_; index++) {
    Lock<P>& entry = lock(index);
    entry.gate.fetch_and(~(kGateQueued | kGatePoked), std::memory_order_seq_cst);
    if (get(entry.queue_head) != 0) entry.gate.fetch_or(kGateQueued, std::memory_order_seq_cst);
  }
  return true;
}

// A storage is a lock's current one, or retired since a slot of that lock refers to it, or free.
template <class P>
bool Arena<P>::rebuild_storages() {
  Marks taken(used(storages_));
  if (!taken) return false;
  const auto take = [&](uint32_t storage) {
    if (!taken.covers(storage)) fault_ = true;
    if (fault_ || taken.has(storage)) return false;
    taken.set(storage);
    return true;
  };
  const uint32_t locks = used(locks_);
  for (uint32_t index = 1; index <= locks && !fault_; index++) {
    const Lock<P>& entry = lock(index);
    if ((get(entry.name_bytes) & kNameUsed) != 0 &&
        !take(storage_of(entry.gate.load(std::memory_order_relaxed)))) {
      fault_ = true;  // two locks on one storage
    }
  }
  const uint32_t slots = used(slots_);
  for (uint32_t index = 1; index <= slots && !fault_; index++) {
    const Slot<P>& entry = slot(index);
    const uint32_t lock_index = get(entry.lock);
    const uint64_t word = word_of(entry);
    if (lock_index == 0 || !refers(word) || !take(storage_of(word))) continue;
    Lock<P>& of = lock(lock_index);
    set(at(storages_, storage_of(word)).next, get(of.retired));
    set(of.retired, storage_of(word));
  }
  for (uint32_t index = 1; index <= taken.entries() && !fault_; index++) {
    if (!taken.has(index)) free_entry(storages_, index);
  }
  return true;
}

template <class P>
void Arena<P>::rebuild_fronts(const Latched& latched) {
  const uint32_t locks = used(locks_);
  for (uint32_t index = 1; index <= locks && !fault_; index++) {
    const Lock<P>& entry = lock(index);
    if ((get(entry.name_bytes) & kNameUsed) == 0) continue;
    if (get(entry.slots_head) == 0) lock_unused(latched, index);
    front_changed(latched, index);
  }
  // Whoever was robbed may not have been told.
  const uint32_t slots = used(slots_);
  for (uint32_t index = 1; index <= slots && !fault_; index++) {
    if (phase_of(word_of(slot(index))) == Phase::kStolen) ring(latched, index);
  }
}

}  // namespace proclock
