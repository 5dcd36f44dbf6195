// Tables, bounds, lists, and binding slots.
//
// A table grows by whole pages, which are reserved before anybody touches them. Each process reserves them once more
// before it touches them itself (Table::limit): that costs one system call a growth, and what `reserved` says need not be
// believed, where a page that is missing on a full tmpfs would be a SIGBUS.
#pragma once

#include "latch.h"

namespace proclock {

// The entry, or null where the index is none of the table's. Needs no latch.
template <class P>
template <class T>
inline T* Arena<P>::find(const Table<T>& table, uint32_t index) const {
  if (index == 0) return nullptr;
  if (index > table.limit.load(std::memory_order_relaxed)) {
    if (!const_cast<Arena*>(this)->extend(const_cast<Table<T>&>(table), index)) return nullptr;
  }
  return reinterpret_cast<T*>(table.base) + (index - 1);
}

template <class P>
template <class T>
bool Arena<P>::extend(Table<T>& table, uint32_t index) {
  const uint32_t reserved = std::min(get(table.meta->reserved), table.max);
  if (index > reserved) return false;
  uint32_t limit = table.limit.load(std::memory_order_relaxed);
  const size_t from = table.offset + size_t{limit} * sizeof(T) / kPage * kPage;
  const size_t to = table.offset + Layout<P>::page_up(size_t{reserved} * sizeof(T));
  // Any other failure says nothing about the pages: the descriptor may have been closed by the host.
  if (to > from && memory_.reserve(from, to - from) == Status::kNoSpace) return false;
  while (limit < reserved && !table.limit.compare_exchange_weak(limit, reserved, std::memory_order_relaxed)) {
  }
  return true;
}

template <class P>
template <class T>
T& Arena<P>::at(Table<T>& table, uint32_t index) {
  T* entry = steps_left_ != 0 || extend_steps() ? find(table, index) : nullptr;
  if (entry != nullptr) {
    steps_left_--;
    return *entry;
  }
  fault_ = true;
  return *table.dummy;
}

// What there is in use may be worked through several times in one entry into the latch, and no more often.
template <class P>
bool Arena<P>::extend_steps() {
  if (steps_extended_) return false;
  steps_extended_ = true;
  const uint64_t in_use =
      uint64_t{used(processes_)} + used(locks_) + used(storages_) + used(slots_) + used(extents_);
  steps_left_ = in_use * kStepsPerEntry;
  return steps_left_ != 0;
}

template <class P>
template <class T>
Status Arena<P>::grow(Table<T>& table) {
  const uint32_t reserved = std::min(get(table.meta->reserved), table.max);
  if (reserved == table.max) return Status::kCapacity;
  // A quarter more, in whole pages: few calls for a large table, little waste for a small one.
  const size_t left = (table.max - reserved) * sizeof(T);
  size_t bytes = std::min({Layout<P>::page_up(reserved * sizeof(T) / 4), size_t{64} * kPage, left});
  const size_t offset = table.offset + reserved * sizeof(T);
  Status status = memory_.reserve(offset, bytes);
  if (!ok(status) && bytes > kPage) {
    bytes = kPage;
    status = memory_.reserve(offset, bytes);
  }
  if (ok(status)) set(table.meta->reserved, reserved + static_cast<uint32_t>(bytes / sizeof(T)));
  return status;
}

// An entry with unknown content: the caller writes every field, and last the one that makes it count.
template <class P>
template <class T>
Status Arena<P>::allocate(Table<T>& table, uint32_t* index) {
  const uint32_t head = get(table.meta->free_head);
  if (head != 0) {
    T& entry = at(table, head);
    if (fault_) return Status::kCorrupt;
    set(table.meta->free_head, get(entry.*table.link));
    set(table.meta->free_count, get(table.meta->free_count) - 1);
    *index = head;
    return Status::kOk;
  }
  const uint32_t next = used(table) + 1;
  if (next > std::min(get(table.meta->reserved), table.max)) {
    const Status status = grow(table);
    if (!ok(status)) return status;
  }
  set(table.meta->used, next);
  *index = next;
  return Status::kOk;
}

template <class P>
template <class T>
void Arena<P>::free_entry(Table<T>& table, uint32_t index) {
  set(at(table, index).*table.link, get(table.meta->free_head));
  set(table.meta->free_head, index);
  add(table.meta->free_count, 1);
}

// ---- lists of slots

template <class P>
void Arena<P>::push_slot(Atomic<uint32_t>& head, const Links& links, uint32_t index) {
  Slot<P>& entry = slot(index);
  const uint32_t first = get(head);
  set(entry.*links.next, first);
  set(entry.*links.prev, 0);
  if (first != 0) set(slot(first).*links.prev, index);
  set(head, index);
}

template <class P>
void Arena<P>::remove_slot(Atomic<uint32_t>& head, Atomic<uint32_t>* tail, const Links& links,
                           uint32_t index) {
  Slot<P>& entry = slot(index);
  const uint32_t next = get(entry.*links.next);
  const uint32_t prev = get(entry.*links.prev);
  Atomic<uint32_t>& to_us = prev == 0 ? head : slot(prev).*links.next;
  if (get(to_us) != index) fault_ = true;
  if (fault_) return;
  set(to_us, next);
  if (next != 0) {
    set(slot(next).*links.prev, prev);
  } else if (tail != nullptr) {
    set(*tail, prev);
  }
  set(entry.*links.next, 0);
  set(entry.*links.prev, 0);
}

// visit(index, slot) returns false to stop; it may remove the slot it is given. Who meets more slots than there are goes round
// in a circle: what is collected on the way is no more than the table.
template <class P>
template <class Visit>
void Arena<P>::each_slot(const Atomic<uint32_t>& head, const Links& links, Visit visit) {
  uint32_t left = used(slots_);
  for (uint32_t index = get(head); index != 0 && !fault_; left--) {
    Slot<P>& entry = slot(index);
    const uint32_t next = get(entry.*links.next);
    if (left == 0) fault_ = true;  // more than there are
    if (fault_ || !visit(index, entry)) return;
    index = next;
  }
}

// ---- binding a slot to a lock

template <class P>
Status Arena<P>::bind_slot(const Latched& latched, uint32_t lock_index, uint32_t thread, SlotRef* ref) {
  Lock<P>& entry = lock(lock_index);
  Process<P>& owner = process(self_);
  uint32_t index;
  const Status status = allocate(slots_, &index);
  if (!ok(status)) return status;
  Slot<P>& fresh = slot(index);
  if (fault_) return Status::kCorrupt;
  const uint64_t tag = next_tag(fresh.word.load(std::memory_order_relaxed), self_);
  fresh.word.store(idle_word(tag), std::memory_order_relaxed);
  fresh.since.store(0, std::memory_order_relaxed);
  for (Atomic<uint32_t>* field :
       {&fresh.wake, &fresh.ticket, &fresh.flags, &fresh.queue_next, &fresh.queue_prev}) {
    set(*field, 0);
  }
  set(fresh.thread, thread);
  // release, because: a rebuild after our death takes the slot for bound exactly if it finds the lock in it.
  fresh.lock.store(lock_index, std::memory_order_release);
  lock_used(lock_index);
  push_slot(entry.slots_head, kByLock, index);
  push_slot(owner.slots_head, kByProcess, index);
  *ref = {&fresh, &entry, index, lock_index, tag};
  return latched.status();
}

template <class P>
void Arena<P>::take_off_doorbell(const Latched&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  if ((flags_of(entry) & kSlotOnDoorbell) == 0) return;
  Atomic<uint32_t>* link = &process(owner_of(word_of(entry))).poked_head;
  for (uint32_t index = get(*link); index != slot_index; index = get(*link)) {
    if (index == 0) fault_ = true;
    link = &slot(index).poked_next;
    if (fault_) return;
  }
  set(*link, get(entry.poked_next));
}

// The slot refers to nothing and is not in the queue.
template <class P>
void Arena<P>::unbind_slot(const Latched& latched, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  const uint64_t word = word_of(entry);
  const uint32_t lock_index = get(entry.lock);
  Lock<P>& of = lock(lock_index);
  Process<P>& owner = process(owner_of(word));
  if (fault_) return;
  take_off_doorbell(latched, slot_index);
  remove_slot(of.slots_head, nullptr, kByLock, slot_index);
  remove_slot(owner.slots_head, nullptr, kByProcess, slot_index);
  if (fault_) return;
  entry.lock.store(0, std::memory_order_release);
  entry.word.store(free_word(word), std::memory_order_relaxed);
  free_entry(slots_, slot_index);
  if (get(of.slots_head) == 0) lock_unused(latched, lock_index);
}

template <class P>
Status Arena<P>::bind(uint32_t lock_index, uint32_t thread, SlotRef* ref) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  return bind_slot(latched, lock_index, thread, ref);
}

template <class P>
Status Arena<P>::unbind(const SlotRef& ref) {
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  if (tag_of(word_of(*ref.slot)) != ref.tag) fault_ = true;  // a stranger's by now
  if (!fault_) unbind_slot(latched, ref.slot_index);
  return latched.status();
}

}  // namespace proclock
