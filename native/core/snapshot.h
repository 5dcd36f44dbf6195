// What query() shows.
#pragma once

#include "rebuild.h"

namespace proclock {

// Processes to be asked about, each once.
struct Suspects {
  explicit Suspects(uint32_t processes) : seen(processes + 1) {}
  void add(uint32_t owner) {
    if (owner == 0 || owner >= seen.size() || seen[owner]) return;
    seen[owner] = true;
    all.push_back(owner);
  }
  std::vector<bool> seen;
  std::vector<uint32_t> all;
};

// Does the slot wait, and not hold? (One that was granted may still have its place in the queue.)
template <class P>
bool Arena<P>::is_pending(uint64_t word, uint32_t flags) {
  return (flags & (kSlotQueued | kSlotGranted)) == kSlotQueued && !is_held(word);
}

// Does the slot hold, shared, and wait to be upgraded?
template <class P>
bool Arena<P>::is_upgrading(uint64_t word, uint32_t flags) {
  return (flags & (kSlotUpgrading | kSlotGranted)) == kSlotUpgrading && holds(word, Mode::kShared);
}

// Does its owner wait for anything?
template <class P>
bool Arena<P>::waits(uint64_t word, uint32_t flags) {
  return is_pending(word, flags) || is_upgrading(word, flags);
}

template <class P>
HolderInfo Arena<P>::describe(const Slot<P>& slot, uint64_t word, uint32_t flags, bool pending) const {
  HolderInfo info;
  info.lock = get(slot.lock);
  info.pending = pending;
  info.mode = pending ? ((flags & kSlotExclusive) != 0 ? Mode::kExclusive : Mode::kShared) : mode_of(word);
  info.thread = get(slot.thread);
  info.process = owner_of(word);
  info.ticket = get(slot.ticket);
  const double since_ms = double_of(slot.since.load(std::memory_order_relaxed));
  info.since_ms =
      since_ms >= 0 ? since_ms : 0;  // what is no number has no order, and lists of these are sorted
  uint64_t number;
  read_process(info.process, &info.identity, &number);
  return info;
}

// Nobody is shown who was not asked about. `waiters`: as well as holders.
template <class P>
Status Arena<P>::snapshot(uint32_t lock_index, std::vector<HolderInfo>* infos, bool waiters) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  Lock<P>& entry = lock(lock_index);
  Suspects suspects(used(processes_));
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = word_of(other);
    if (waiters ? is_involved(word, flags_of(other)) : refers(word)) suspects.add(owner_of(word));
    return true;
  });
  check_processes(latched, suspects.all);
  each_slot(entry.slots_head, kByLock, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = word_of(other);
    if (is_held(word)) infos->push_back(describe(other, word, flags_of(other), false));
    return true;
  });
  if (!waiters) return latched.status();
  each_slot(entry.queue_head, kByQueue, [&](uint32_t, Slot<P>& other) {
    const uint64_t word = word_of(other);
    const uint32_t flags = flags_of(other);
    if (is_pending(word, flags)) infos->push_back(describe(other, word, flags, true));
    return true;
  });
  return latched.status();
}

// All holds and waits of the namespace: holds by age, then waits in queue order. One pass over the slots, in the order in
// which they lie in memory.
template <class P>
Status Arena<P>::snapshot_all(std::vector<HolderInfo>* infos, std::unordered_map<uint32_t, LockName>* names) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint32_t slots = used(slots_);
  Suspects suspects(used(processes_));
  for (uint32_t index = 1; index <= slots && !fault_; index++) {
    const Slot<P>& other = slot(index);
    const uint64_t word = word_of(other);
    if (get(other.lock) != 0 && is_involved(word, flags_of(other))) suspects.add(owner_of(word));
  }
  check_processes(latched, suspects.all);
  size_t name_bytes = 0;
  for (uint32_t index = 1; index <= slots && !fault_; index++) {
    const Slot<P>& other = slot(index);
    const uint64_t word = word_of(other);
    const uint32_t flags = flags_of(other);
    const uint32_t lock_index = get(other.lock);
    const bool pending = is_pending(word, flags);
    if (lock_index == 0 || (!pending && !is_held(word))) continue;
    LockName name;
    if (names->count(lock_index) == 0 && read_name(latched, lock_index, &name)) {
      // Each extent belongs to one name: together they are no longer than the tables.
      name_bytes += name.bytes.size();
      if (name_bytes > names_bytes_max()) fault_ = true;
      (*names)[lock_index] = std::move(name);
    }
    infos->push_back(describe(other, word, flags, pending));
    infos->back().lock = lock_index;
  }
  const uint32_t newest = get(header_->ticket);
  std::sort(infos->begin(), infos->end(), [newest](const HolderInfo& a, const HolderInfo& b) {
    if (a.pending != b.pending) return b.pending;
    return a.pending ? newest - a.ticket > newest - b.ticket : a.since_ms < b.since_ms;
  });
  return latched.status();
}

// All locks of the namespace that are marked as abandoned, whether somebody has them open or not.
template <class P>
Status Arena<P>::snapshot_marks(std::vector<MarkedLock>* marks) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  const uint32_t locks = used(locks_);
  size_t name_bytes = 0;
  for (uint32_t index = 1; index <= locks && !fault_; index++) {
    const Lock<P>& entry = lock(index);
    MarkedLock marked;
    if (!is_abandoned(get(entry.abandoned)) || !read_name(latched, index, &marked.name)) continue;
    name_bytes += marked.name.bytes.size();
    if (name_bytes > names_bytes_max()) fault_ = true;
    marked.mark = mark_of(entry);
    marks->push_back(std::move(marked));
  }
  return latched.status();
}

// How many wait ahead of this wait.
template <class P>
Status Arena<P>::place(const SlotRef& ref, uint32_t* ahead) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  *ahead = 0;
  each_slot(ref.lock->queue_head, kByQueue, [&](uint32_t index, Slot<P>& other) {
    if (index == ref.slot_index) return false;
    if (is_pending(word_of(other), flags_of(other))) ++*ahead;
    return true;
  });
  return latched.status();
}

}  // namespace proclock
