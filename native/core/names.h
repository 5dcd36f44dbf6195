// From a name to its lock entry and back.
//
// A name is any string; it is kept whole, as Latin-1 where that is enough and as UTF-16 otherwise, the first bytes in
// the entry and the rest in a chain of extents. The index is linear hashing: as many buckets as names have ever been in
// use at once, split one at a time, so opening the 200,000th name costs what opening the first did.
//
// An entry to which no slot is bound keeps its name, token and storage, in case the name is opened again, until space
// is wanted: then the one that was unused for longest makes room, before the file grows. One that carries an abandoned
// record makes room only when the table is full or no memory is left, the oldest first, and that is counted: somebody is to
// be told. Extents are found in the same way. Tokens never go back: a new entry starts from the wall clock in nanoseconds (no lock is granted a
// thousand million times a second) and above every token of an entry that was reclaimed.
#pragma once

#include "tables.h"

namespace proclock {

// FNV-1a, then a finaliser, since buckets are taken from the low bits.
inline uint32_t hash_name(const Name& name) {
  uint64_t hash = 0xcbf29ce484222325u ^ (name.utf16 ? 1 : 0);
  const auto* bytes = static_cast<const unsigned char*>(name.bytes);
  for (uint32_t i = 0; i < name.size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccdu;
  hash ^= hash >> 33;
  return static_cast<uint32_t>(hash);
}

// How many buckets the index has, as far as they exist.
template <class P>
uint32_t Arena<P>::buckets_in_use() {
  const uint32_t count = std::max(std::min(get(header_->buckets.used), kBucketsMax), kBucketsMin);
  if (count > buckets_limit_) {
    const size_t from = Layout<P>::kBuckets + buckets_limit_ * sizeof(uint32_t) / kPage * kPage;
    const size_t to = Layout<P>::kBuckets + Layout<P>::page_up(count * sizeof(uint32_t));
    if (memory_.reserve(from, to - from) == Status::kNoSpace) {
      fault_ = true;
      return kBucketsMin;
    }
    buckets_limit_ = static_cast<uint32_t>((to - Layout<P>::kBuckets) / sizeof(uint32_t));
  }
  return count;
}

template <class P>
uint32_t Arena<P>::bucket_of(uint32_t hash, uint32_t count) {
  uint32_t mask = kBucketsMin - 1;
  while (mask + 1 < count) mask = mask << 1 | 1;
  const uint32_t index = hash & mask;
  return index < count ? index : index & mask >> 1;
}

template <class P>
bool Arena<P>::name_equals(const Lock<P>& entry, const Name& name) {
  const uint32_t wanted = name.size | kNameUsed | (name.utf16 ? kNameUtf16 : 0);
  if (get(entry.name_bytes) != wanted) return false;
  const auto* bytes = static_cast<const char*>(name.bytes);
  const uint32_t inline_bytes = std::min<uint32_t>(name.size, kNameInlineBytes);
  if (memcmp(entry.name, bytes, inline_bytes) != 0) return false;
  uint32_t at_extent = get(entry.name_rest);
  for (uint32_t done = inline_bytes; done < name.size;) {
    const Extent<P>& extent = at(extents_, at_extent);
    const uint32_t part = std::min<uint32_t>(name.size - done, kExtentBytes);
    if (fault_ || memcmp(extent.bytes, bytes + done, part) != 0) return false;
    done += part;
    at_extent = get(extent.next);
  }
  return true;
}

template <class P>
uint32_t Arena<P>::find_lock(const Latched&, const Name& name, uint32_t hash) {
  for (uint32_t index = get(bucket(bucket_of(hash, buckets_in_use()))); index != 0 && !fault_;) {
    const Lock<P>& entry = lock(index);
    if (get(entry.hash) == hash && name_equals(entry, name)) return index;
    index = get(entry.next_in_bucket);
  }
  return 0;
}

template <class P>
Status Arena<P>::write_name(const Latched& latched, Lock<P>& entry, const Name& name) {
  const auto* bytes = static_cast<const char*>(name.bytes);
  const uint32_t inline_bytes = std::min<uint32_t>(name.size, kNameInlineBytes);
  memcpy(static_cast<void*>(entry.name), bytes, inline_bytes);
  set(entry.name_rest, 0);
  Atomic<uint32_t>* link = &entry.name_rest;
  for (uint32_t done = inline_bytes; done < name.size;) {
    uint32_t index;
    const Status status = allocate_extent(latched, &index);
    if (!ok(status)) {
      free_extents(get(entry.name_rest));
      return status;
    }
    Extent<P>& extent = at(extents_, index);
    const uint32_t part = std::min<uint32_t>(name.size - done, kExtentBytes);
    memcpy(static_cast<void*>(extent.bytes), bytes + done, part);
    set(extent.next, 0);
    set(*link, index);
    link = &extent.next;
    done += part;
  }
  return Status::kOk;
}

template <class P>
void Arena<P>::free_extents(uint32_t first) {
  for (uint32_t index = first; index != 0 && !fault_;) {
    const uint32_t next = get(at(extents_, index).next);
    free_entry(extents_, index);
    index = next;
  }
}

template <class P>
bool Arena<P>::read_name(const Latched&, uint32_t index, LockName* name) {
  const Lock<P>& entry = lock(index);
  const uint32_t flags = get(entry.name_bytes);
  const uint32_t size = flags & kNameBytesMask;
  if (fault_ || (flags & kNameUsed) == 0) return false;
  if (size > names_bytes_max()) fault_ = true;
  if (fault_) return false;
  name->utf16 = (flags & kNameUtf16) != 0;
  name->bytes.assign(reinterpret_cast<const char*>(entry.name), std::min<uint32_t>(size, kNameInlineBytes));
  for (uint32_t extent = get(entry.name_rest); name->bytes.size() < size && !fault_;) {
    const Extent<P>& part = at(extents_, extent);
    name->bytes.append(reinterpret_cast<const char*>(part.bytes),
                       std::min<size_t>(size - name->bytes.size(), kExtentBytes));
    extent = get(part.next);
  }
  return !fault_;
}

// One bucket more: the names that belong there leave the bucket that had them until now.
template <class P>
void Arena<P>::grow_index() {
  TableMeta<P>& meta = header_->buckets;
  const uint32_t count = buckets_in_use();
  if (fault_ || count >= kBucketsMax) return;
  if (count >= get(meta.reserved)) {
    // Without it the index is only slower.
    if (!ok(memory_.reserve(Layout<P>::kBuckets + count * sizeof(uint32_t) / kPage * kPage, kPage))) return;
    set(meta.reserved, count + static_cast<uint32_t>(kPage / sizeof(uint32_t)));
  }
  uint32_t high = kBucketsMin;
  while (high << 1 <= count) high <<= 1;
  set(meta.used, count + 1);
  if (buckets_in_use() != count + 1) return;
  Atomic<uint32_t>& from = bucket(count - high);
  Atomic<uint32_t>& to = bucket(count);
  uint32_t index = get(from);
  set(from, 0);
  set(to, 0);
  while (index != 0 && !fault_) {
    Lock<P>& entry = lock(index);
    const uint32_t next = get(entry.next_in_bucket);
    Atomic<uint32_t>& home = bucket_of(get(entry.hash), count + 1) == count ? to : from;
    set(entry.next_in_bucket, get(home));
    set(home, index);
    index = next;
  }
}

template <class P>
void Arena<P>::unlink_name(uint32_t index) {
  Lock<P>& entry = lock(index);
  Atomic<uint32_t>* link = &bucket(bucket_of(get(entry.hash), buckets_in_use()));
  for (uint32_t other = get(*link); other != index; other = get(*link)) {
    if (other == 0) fault_ = true;
    link = &lock(other).next_in_bucket;
    if (fault_) return;
  }
  set(*link, get(entry.next_in_bucket));
}

template <class P>
void Arena<P>::lock_unused(const Latched& latched, uint32_t index) {
  Lock<P>& entry = lock(index);
  reuse_retired(latched, index, true);
  const bool marked = is_abandoned(get(entry.abandoned));
  Atomic<uint32_t>& head = marked ? header_->marked_head : header_->unused_head;
  Atomic<uint32_t>& tail = marked ? header_->marked_tail : header_->unused_tail;
  const uint32_t last = get(tail);
  set(entry.unused_prev, last);
  set(entry.unused_next, 0);
  set(last == 0 ? head : lock(last).unused_next, index);
  set(tail, index);
}

template <class P>
void Arena<P>::lock_used(uint32_t index) {
  Lock<P>& entry = lock(index);
  const uint32_t next = get(entry.unused_next);
  const uint32_t prev = get(entry.unused_prev);
  const bool marked = is_abandoned(get(entry.abandoned));
  Atomic<uint32_t>& head = marked ? header_->marked_head : header_->unused_head;
  Atomic<uint32_t>& tail = marked ? header_->marked_tail : header_->unused_tail;
  if (next == 0 && prev == 0 && get(head) != index) return;
  set(prev == 0 ? head : lock(prev).unused_next, next);
  set(next == 0 ? tail : lock(next).unused_prev, prev);
  set(entry.unused_next, 0);
  set(entry.unused_prev, 0);
}

// Nobody is bound to it, so nobody refers to its storage either.
template <class P>
void Arena<P>::reclaim_lock(const Latched&, uint32_t index) {
  Lock<P>& entry = lock(index);
  if (get(entry.slots_head) != 0) fault_ = true;
  if (fault_) return;
  lock_used(index);
  unlink_name(index);
  if (fault_) return;
  const uint64_t token = entry.token.load(std::memory_order_relaxed);
  if (token > header_->token_floor.load(std::memory_order_relaxed)) {
    header_->token_floor.store(token, std::memory_order_relaxed);
  }
  // release, because: a rebuild after our death must not find the entry gone and the floor still low.
  entry.name_bytes.store(0, std::memory_order_release);
  free_extents(get(entry.name_rest));
  set(entry.name_rest, 0);
  free_entry(storages_, storage_of(entry.gate.load(std::memory_order_relaxed)));
  entry.gate.store(0, std::memory_order_relaxed);
  free_entry(locks_, index);
}

// Makes room of the name that nobody has had open for longest. False: there is none.
template <class P>
bool Arena<P>::reclaim_oldest(const Latched& latched, bool marked_too) {
  uint32_t oldest = get(header_->unused_head);
  if (oldest == 0 && marked_too) {
    oldest = get(header_->marked_head);
    if (oldest != 0) marks_dropped_.fetch_add(1, std::memory_order_relaxed);
  }
  if (oldest == 0) return false;
  reclaim_lock(latched, oldest);
  return !fault_;
}

template <class P>
Status Arena<P>::allocate_lock(const Latched& latched, uint32_t* index) {
  const bool at_hand =
      get(locks_.meta->free_head) != 0 || used(locks_) < std::min(get(locks_.meta->reserved), locks_.max);
  if (!at_hand) reclaim_oldest(latched, false);
  Status status = fault_ ? Status::kCorrupt : allocate(locks_, index);
  if ((status == Status::kCapacity || status == Status::kNoSpace) && reclaim_oldest(latched, true))
    status = allocate(locks_, index);
  if (ok(status) && used(locks_) > get(header_->buckets.used)) grow_index();
  return fault_ ? Status::kCorrupt : status;
}

template <class P>
Status Arena<P>::allocate_extent(const Latched& latched, uint32_t* index) {
  Status status = allocate(extents_, index);
  while ((status == Status::kCapacity || status == Status::kNoSpace) && reclaim_oldest(latched, true)) {
    status = allocate(extents_, index);
  }
  return fault_ ? Status::kCorrupt : status;
}

template <class P>
Status Arena<P>::create_lock(const Latched& latched, const Name& name, uint32_t hash, uint32_t* index) {
  uint32_t storage;
  Status status = allocate_storage(&storage, false);
  if ((status == Status::kCapacity || status == Status::kNoSpace) && reclaim_oldest(latched, true))
    status = allocate_storage(&storage, false);
  if (!ok(status)) return status;
  status = allocate_lock(latched, index);
  if (!ok(status)) {
    free_entry(storages_, storage);
    return status;
  }
  Lock<P>& entry = lock(*index);
  status = write_name(latched, entry, name);
  if (!ok(status)) {
    free_entry(storages_, storage);
    free_entry(locks_, *index);
    return status;
  }
  P::init(&at(storages_, storage).rwlock);
  entry.token.store(std::max(P::wall_ns(), header_->token_floor.load(std::memory_order_relaxed)),
                    std::memory_order_relaxed);
  entry.barrier_ns.store(kNoDeadline, std::memory_order_relaxed);
  for (Atomic<uint32_t>* field :
       {&entry.pokes, &entry.unwatched, &entry.look_cursor, &entry.abandoned, &entry.holder,
        &entry.queue_head, &entry.queue_tail, &entry.queue_fair, &entry.slots_head, &entry.unused_next,
        &entry.unused_prev, &entry.retired}) {
    set(*field, 0);
  }
  set(entry.hash, hash);
  entry.gate.store(gate_word(storage), std::memory_order_relaxed);
  // release, because: a rebuild after our death takes the entry for real exactly if its name says so.
  entry.name_bytes.store(name.size | kNameUsed | (name.utf16 ? kNameUtf16 : 0), std::memory_order_release);
  Atomic<uint32_t>& home = bucket(bucket_of(hash, buckets_in_use()));
  set(entry.next_in_bucket, get(home));
  set(home, *index);
  return Status::kOk;
}

// The lock of this name, with a slot of this thread bound to it: what keeps the entry from being reclaimed.
template <class P>
Status Arena<P>::open_lock(const Name& name, uint32_t thread, SlotRef* ref) {
  if (name.size > kNameBytesMax) return Status::kCapacity;
  const uint32_t hash = hash_name(name);
  Latched latched(*this);
  if (!ok(latched.status())) return latched.status();
  uint32_t index = find_lock(latched, name, hash);
  if (!ok(latched.status())) return latched.status();
  const bool create = index == 0;
  if (create) {
    const Status status = create_lock(latched, name, hash, &index);
    if (!ok(status)) return status;
  }
  const Status status = bind_slot(latched, index, thread, ref);
  if (create && !ok(status) && !fault_) lock_unused(latched, index);
  return status;
}

}  // namespace proclock
