// Checks everything derived in a segment against the facts. The core is to be included before: the shipped one, or the one
// with mutants in it.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "harness.h"

// What is in use in a segment, counted from the facts.
struct Census {
  uint32_t processes = 0;
  uint32_t locks = 0;
  uint32_t storages = 0;  // current ones and retired ones
  uint32_t retired = 0;
  uint32_t slots = 0;
  uint32_t extents = 0;
  uint32_t queued = 0;
};

template <class P>
class BasicAuditor {
 public:
  using Header = proclock::Header<P>;
  using Process = proclock::Process<P>;
  using Lock = proclock::Lock<P>;
  using Storage = proclock::Storage<P>;
  using Slot = proclock::Slot<P>;
  using Extent = proclock::Extent<P>;
  using Layout = proclock::Layout<P>;
  template <class T>
  using Atomic = typename P::template Atomic<T>;

  explicit BasicAuditor(char* base) : base_(base), header_(reinterpret_cast<Header*>(base)) {}

  Process& process(uint32_t index) const { return entry<Process>(Layout::kProcesses, index); }
  Lock& lock(uint32_t index) const { return entry<Lock>(Layout::kLocks, index); }
  Storage& storage(uint32_t index) const { return entry<Storage>(Layout::kStorages, index); }
  Slot& slot(uint32_t index) const { return entry<Slot>(Layout::kSlots, index); }
  Extent& extent(uint32_t index) const { return entry<Extent>(Layout::kExtents, index); }
  Atomic<uint32_t>& bucket(uint32_t index) const {
    return reinterpret_cast<Atomic<uint32_t>*>(base_ + Layout::kBuckets)[index];
  }

  static uint32_t get(const Atomic<uint32_t>& field) { return field.load(std::memory_order_relaxed); }
  static uint64_t get(const Atomic<uint64_t>& field) { return field.load(std::memory_order_relaxed); }

  bool named(uint32_t index) const { return (get(lock(index).name_bytes) & proclock::kNameUsed) != 0; }

  // The slots of a queue, in order.
  std::vector<uint32_t> queue(uint32_t lock_index) const {
    return chain(get(lock(lock_index).queue_head), &Slot::queue_next);
  }

  // Nobody may be in the segment meanwhile.
  Census check() const {
    Census census;
    const uint32_t processes = get(header_->processes.used);
    const uint32_t locks = get(header_->locks.used);
    const uint32_t slots = get(header_->slots.used);

    std::map<uint32_t, std::set<uint32_t>> by_lock, by_process;
    std::map<uint32_t, std::vector<std::pair<uint32_t, uint32_t>>> queues;
    std::set<uint32_t> bound;
    for (uint32_t index = 1; index <= slots; index++) {
      const Slot& s = slot(index);
      if (get(s.lock) == 0) continue;
      bound.insert(index);
      by_lock[get(s.lock)].insert(index);
      by_process[proclock::owner_of(get(s.word))].insert(index);
      CHECK(get(s.lock) <= locks && named(get(s.lock)));
      if ((get(s.flags) & proclock::kSlotQueued) != 0) {
        queues[get(s.lock)].push_back({get(s.ticket), index});
        // Whoever waits to be upgraded holds.
        const uint32_t upgrades = get(s.flags) & (proclock::kSlotUpgrading | proclock::kSlotGranted);
        if (upgrades == proclock::kSlotUpgrading)
          CHECK(proclock::holds(get(s.word), proclock::Mode::kShared));
        census.queued++;
      }
    }
    census.slots = static_cast<uint32_t>(bound.size());
    CHECK_EQ(get(header_->latch), 0u);
    check_table(header_->slots, Layout::kSlots, &Slot::lock_next, bound);

    std::set<uint32_t> alive;
    for (uint32_t index = 1; index <= processes; index++) {
      const Process& p = process(index);
      if (get(p.state) == static_cast<uint32_t>(proclock::ProcessState::kFree)) continue;
      alive.insert(index);
      CHECK(set_of(get(p.slots_head), &Slot::process_next) == by_process[index]);
    }
    census.processes = static_cast<uint32_t>(alive.size());
    check_table(header_->processes, Layout::kProcesses, &Process::slots_head, alive);

    std::set<uint32_t> names, storages, extents, unused, marked;
    for (uint32_t index = 1; index <= locks; index++) {
      if (!named(index)) continue;
      names.insert(index);
      const Lock& l = lock(index);
      const uint64_t gate = get(l.gate);
      CHECK(!proclock::is_recovering(gate));
      CHECK(storages.insert(proclock::storage_of(gate)).second);
      for (uint32_t s = get(l.retired); s != 0; s = get(storage(s).next)) {
        CHECK(storages.insert(s).second);
        census.retired++;
      }
      CHECK(set_of(get(l.slots_head), &Slot::lock_next) == by_lock[index]);
      if (by_lock[index].empty()) (get(l.abandoned) != 0 ? marked : unused).insert(index);
      for (const uint32_t s : by_lock[index]) {
        const uint64_t word = get(slot(s).word);
        if (proclock::is_held(word)) CHECK_EQ(proclock::storage_of(word), proclock::storage_of(gate));
      }

      std::sort(queues[index].begin(), queues[index].end());
      std::vector<uint32_t> in_order;
      uint32_t fair = 0;
      for (const auto& place : queues[index]) {
        in_order.push_back(place.second);
        fair += (get(slot(place.second).flags) & proclock::kSlotFair) != 0;
      }
      CHECK(queue(index) == in_order);
      CHECK_EQ(get(l.queue_tail), in_order.empty() ? 0 : in_order.back());
      CHECK_EQ(get(l.queue_fair), fair);
      CHECK_EQ(proclock::has_waiters(gate), !in_order.empty());

      for (uint32_t e = get(l.name_rest); e != 0; e = get(extent(e).next)) CHECK(extents.insert(e).second);
    }
    census.locks = static_cast<uint32_t>(names.size());
    census.storages = static_cast<uint32_t>(storages.size());
    census.extents = static_cast<uint32_t>(extents.size());
    check_table(header_->locks, Layout::kLocks, &Lock::next_in_bucket, names);
    check_table(header_->storages, Layout::kStorages, &Storage::next, storages);
    check_table(header_->extents, Layout::kExtents, &Extent::next, extents);

    CHECK(listed(header_->unused_head, header_->unused_tail) == unused);
    CHECK(listed(header_->marked_head, header_->marked_tail) == marked);

    std::set<uint32_t> indexed;
    for (uint32_t b = 0; b < get(header_->buckets.used); b++) {
      for (uint32_t l = get(bucket(b)); l != 0; l = get(lock(l).next_in_bucket)) {
        CHECK(indexed.insert(l).second);
        CHECK_EQ(bucket_of(get(lock(l).hash)), b);
      }
    }
    CHECK(indexed == names);
    return census;
  }

 private:
  template <class T>
  T& entry(size_t offset, uint32_t index) const {
    return reinterpret_cast<T*>(base_ + offset)[index - 1];
  }

  std::vector<uint32_t> chain(uint32_t head, Atomic<uint32_t> Slot::* next) const {
    std::vector<uint32_t> found;
    for (uint32_t index = head; index != 0; index = get(slot(index).*next)) {
      found.push_back(index);
      CHECK(found.size() <= proclock::kSlotsMax);
    }
    return found;
  }
  std::set<uint32_t> set_of(uint32_t head, Atomic<uint32_t> Slot::* next) const {
    const std::vector<uint32_t> found = chain(head, next);
    const std::set<uint32_t> unique(found.begin(), found.end());
    CHECK_EQ(unique.size(), found.size());
    return unique;
  }

  // The names of a list of those to which no slot is bound.
  std::set<uint32_t> listed(const Atomic<uint32_t>& head, const Atomic<uint32_t>& tail) const {
    std::set<uint32_t> found;
    uint32_t last = 0;
    for (uint32_t l = get(head); l != 0; l = get(lock(l).unused_next)) {
      CHECK(found.insert(l).second);
      CHECK_EQ(get(lock(l).unused_prev), last);
      last = l;
    }
    CHECK_EQ(get(tail), last);
    return found;
  }

  // Every entry that was ever handed out is in use or free, never both, and none is lost.
  template <class T>
  void check_table(const proclock::TableMeta<P>& meta, size_t offset, Atomic<uint32_t> T::* link,
                   const std::set<uint32_t>& in_use) const {
    std::set<uint32_t> free;
    for (uint32_t index = get(meta.free_head); index != 0; index = get(entry<T>(offset, index).*link)) {
      CHECK(index <= get(meta.used));
      CHECK(free.insert(index).second);
      CHECK(in_use.count(index) == 0);
    }
    CHECK_EQ(free.size(), get(meta.free_count));
    CHECK_EQ(free.size() + in_use.size(), get(meta.used));
    CHECK(get(meta.used) <= get(meta.reserved));
  }

  uint32_t bucket_of(uint32_t hash) const {
    const uint32_t count = get(header_->buckets.used);
    uint32_t size = proclock::kBucketsMin;
    while (size < count) size *= 2;
    const uint32_t index = hash & (size - 1);
    return index < count ? index : index & (size / 2 - 1);
  }

  char* base_;
  Header* header_;
};
