// One namespace: the tables of a mapped segment, and everything that is done to them.
//
// The class is declared here as a whole and implemented by topic:
//   arena.h     tables, bounds, the guard, allocation, binding slots
//   names.h     the name index: from a string to a lock entry and back
//   protocol.h  acquire, release, downgrade: the slot protocol, with the argument why it is right
//   queue.h     waiting: the queue, pokes, the barrier
//   recovery.h  what happens when a process, or the guard's owner, died
//
// Conventions. A function that takes a `const Guard&` needs the guard; the parameter is the proof. References read from
// the segment go through at(), which answers an impossible index with a private dummy entry and remembers the fault:
// loops end, nothing outside the tables is touched, and the operation reports kCorrupt when it leaves the guard. Memory
// orders: behind the guard everything is relaxed, because the mutex orders it; the slot words, gates and wake words,
// which are touched without the guard, say their reasons in protocol.h and queue.h.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "layout.h"
#include "platform.h"
#include "status.h"
#include "words.h"

namespace proclock {

struct Name {
  const void* bytes = nullptr;
  uint32_t size = 0;  // in bytes
  bool utf16 = false;
};

// One line of query(): a hold or a wait, in any process.
struct HolderInfo {
  uint32_t lock = 0;
  Mode mode = Mode::kShared;
  bool pending = false;
  uint32_t thread = 0;
  uint32_t process = 0;
  uint32_t ticket = 0;  // of a wait
  double since_ms = 0;
  ProcessIdentity identity;
};

struct LockName {
  std::string bytes;
  bool utf16 = false;
};

struct AbandonedInfo {
  int32_t pid = 0;
  uint32_t thread = 0;
  double since_ms = 0;
  uint64_t token = 0;
};

// Who may try while others are in the queue.
enum class Turn {
  kMayOvertake,  // a newcomer, as far as the barrier lets it
  kInOrder,      // a newcomer that wants strict FIFO
  kFront,        // the front of the queue itself
};

enum class Try {
  kAcquired,
  kBusy,        // held in a conflicting mode
  kBarred,      // others are first
  kRecovering,  // finish_recovery(), then again
  kOwing,       // not acquired, and release_duty() is to be called until it is not stalled
  kCorrupt,
};

// Told about pokes for slots of this very process, after the guard was left.
class PokeSink {
 public:
  virtual void poked(const std::vector<uint32_t>& slots) = 0;

 protected:
  ~PokeSink() = default;
};

inline double double_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class P>
class Arena {
 public:
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  using Memory = typename P::Memory;

  // A slot of this process with its lock, resolved once; valid as long as the slot stays bound.
  struct SlotRef {
    Slot<P>* slot = nullptr;
    Lock<P>* lock = nullptr;
    uint32_t slot_index = 0;
    uint32_t lock_index = 0;
  };

  static constexpr uint64_t kPatienceNs = 5000000;  // with the guard; it is held for microseconds
  static constexpr uint64_t kGuardPollNs = 1000000;
  static constexpr uint64_t kBargeNs = 1000000;  // how long a running process may overtake the front waiter
  static constexpr uint64_t kUnresponsiveNs = 50000000;  // after which a poked waiter is passed over
  static constexpr uint64_t kQuietNs = 500000000;        // see queue.h
  static constexpr uint32_t kLookProcessesMax = 64;      // how many processes one look asks about
  static constexpr uint32_t kLookSlotsMax = 64;
  static constexpr uint32_t kSpareStorages = 8;  // kept for recovery, which must not fail for want of space

  // Holds the namespace's robust mutex. If its last owner died, everything derived was rebuilt before this returns.
  // Whoever has it may be stopped (SIGSTOP) there: then this gives up after a while, and every operation that says
  // kStalled has done nothing yet and is to be called again.
  //
  // The mutex alone is not enough. When a thread dies while it waits for a robust mutex, the kernel compares the owner's
  // thread id with the dead one's, and reports the owner's death if they are equal - which in two PID namespaces (the
  // first process of each container is 1) they are while the owner lives. So whoever has the mutex enters only if
  // guard_owner is kNobody, or a process whose liveness token is gone.
  class Guard {
   public:
    explicit Guard(Arena& arena);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    // kOk, or what was found to be wrong so far.
    Status status() const {
      if (!locked_) return refused_;
      return arena_.fault_ ? Status::kCorrupt : Status::kOk;
    }

   private:
    bool enter(bool* owner_died);

    Arena& arena_;
    bool locked_ = false;
    Status refused_ = Status::kOk;
  };

  Arena(Memory& memory, PokeSink& sink);

  Header<P>& header() const { return *header_; }
  uint32_t self() const { return self_; }

  Status attach(const ProcessIdentity& self);
  Status detach();

  // names.h
  Status open_lock(const Name& name, uint32_t thread, SlotRef* ref);
  Status bind(uint32_t lock, uint32_t thread, SlotRef* ref);
  Status unbind(const SlotRef& ref);
  bool read_name(const Guard& guard, uint32_t lock, LockName* name);

  // protocol.h
  Try try_acquire(const SlotRef& ref, Mode mode, Turn turn, uint64_t* token);
  Status release(const SlotRef& ref);
  Status release_duty(const SlotRef& ref);
  Status downgrade(const SlotRef& ref);
  Status steal(const SlotRef& ref, uint64_t* token);
  Status check_hold(const SlotRef& ref) const;
  Status set_abandoned(const SlotRef& ref, bool abandoned);
  AbandonedInfo abandoned(const SlotRef& ref) const;

  // queue.h
  Status enqueue(const SlotRef& ref, Mode mode, uint16_t flags);
  Status react(const SlotRef& ref, Mode mode, uint64_t* token);
  Try try_front(const SlotRef& ref, Mode mode, uint64_t* token);
  Status settle_grant(const SlotRef& ref);
  Status withdraw(const SlotRef& ref);
  Status open_barrier_if_overdue(uint32_t lock);
  bool is_quiet(uint32_t lock, uint64_t for_ns) const;
  Status take_poked(std::vector<uint32_t>* slots);

  // recovery.h
  Status finish_recovery(uint32_t lock);
  Status look(uint32_t lock);
  Status recover_if_dead(uint32_t process);
  Status snapshot(uint32_t lock, std::vector<HolderInfo>* infos);
  Status snapshot_all(std::vector<HolderInfo>* infos, std::unordered_map<uint32_t, LockName>* names);
  bool process_identity(uint32_t process, ProcessIdentity* identity) const;
  uint32_t processes_used() const { return used(processes_); }
  Atomic<uint32_t>* doorbell() { return &process(self_).doorbell; }

 private:
  template <class T>
  struct Table {
    char* base;
    TableMeta<P>* meta;
    Atomic<uint32_t> T::* link;  // of the free list
    uint32_t max;
    size_t offset;
    std::unique_ptr<T> dummy = std::make_unique<T>();
    std::atomic<uint32_t> limit{0};  // entries known to be on reserved pages
  };
  struct Links {
    Atomic<uint32_t> Slot<P>::* next;
    Atomic<uint32_t> Slot<P>::* prev;
  };
  static constexpr Links kByLock{&Slot<P>::lock_next, &Slot<P>::lock_prev};
  static constexpr Links kByProcess{&Slot<P>::process_next, &Slot<P>::process_prev};
  static constexpr Links kByQueue{&Slot<P>::queue_next, &Slot<P>::queue_prev};

  static uint32_t get(const Atomic<uint32_t>& field) { return field.load(std::memory_order_relaxed); }
  static void set(Atomic<uint32_t>& field, uint32_t value) { field.store(value, std::memory_order_relaxed); }

  // Tables.
  template <class T>
  T* find(Table<T>& table, uint32_t index) const;
  template <class T>
  T& at(Table<T>& table, uint32_t index);
  template <class T>
  Status grow(Table<T>& table);
  template <class T>
  Status allocate(Table<T>& table, uint32_t* index);
  template <class T>
  void free_entry(Table<T>& table, uint32_t index);
  template <class T>
  static uint32_t used(const Table<T>& table) {
    return std::min(get(table.meta->used), table.max);
  }
  size_t names_bytes_max() const {
    return size_t{used(locks_)} * kNameInlineBytes + size_t{used(extents_)} * kExtentBytes;
  }
  Slot<P>& slot(uint32_t index) { return at(slots_, index); }
  Lock<P>& lock(uint32_t index) { return at(locks_, index); }
  Process<P>& process(uint32_t index) { return at(processes_, index); }
  Atomic<uint32_t>& bucket(uint32_t index) { return reinterpret_cast<Atomic<uint32_t>*>(buckets_)[index]; }

  // Lists of slots.
  void push_slot(Atomic<uint32_t>& head, const Links& links, uint32_t index);
  void remove_slot(Atomic<uint32_t>& head, Atomic<uint32_t>* tail, const Links& links, uint32_t index);
  template <class Visit>
  void each_slot(const Atomic<uint32_t>& head, const Links& links, Visit visit);
  SlotRef resolve(uint32_t slot_index);

  void take_off_doorbell(const Guard& guard, uint32_t slot_index);
  Status bind_slot(const Guard& guard, uint32_t lock, uint32_t thread, SlotRef* ref);
  void unbind_slot(const Guard& guard, uint32_t slot_index);

  // Names.
  uint32_t bucket_of(uint32_t hash) const;
  uint32_t find_lock(const Guard& guard, const Name& name, uint32_t hash);
  bool name_equals(const Lock<P>& entry, const Name& name);
  Status create_lock(const Guard& guard, const Name& name, uint32_t hash, uint32_t* index);
  Status allocate_lock(const Guard& guard, uint32_t* index);
  Status write_name(Lock<P>& entry, const Name& name);
  void free_extents(uint32_t first);
  void grow_index();
  void reclaim_lock(const Guard& guard, uint32_t index);
  void unlink_name(const Guard& guard, uint32_t index);
  void lock_unused(const Guard& guard, uint32_t index);
  void lock_used(const Guard& guard, uint32_t index);

  // Storages.
  Status allocate_storage(uint32_t* index, bool for_recovery);
  Status pick_storage(const Guard& guard, uint32_t lock_index, uint32_t* index);
  void retire_storage(const Guard& guard, uint32_t lock_index, uint32_t storage);
  void reuse_retired(const Guard& guard, uint32_t lock_index, bool all);

  // Queue.
  void remove_waiter(const Guard& guard, uint32_t slot_index);
  uint32_t front(const Guard& guard, uint32_t lock_index);
  void front_changed(const Guard& guard, uint32_t lock_index);
  void poke_front(const Guard& guard, uint32_t lock_index);
  void poke(const Guard& guard, uint32_t slot_index);
  void poke_again(const Guard& guard, uint32_t lock_index);
  void ring(const Guard& guard, uint32_t slot_index);
  void put_on_doorbell(const Guard& guard, uint32_t slot_index);
  void wake(Atomic<uint32_t>* word);
  void keep_poked(const Guard& guard, uint32_t lock_index, const Slot<P>& next);
  bool may_overtake(const Lock<P>& entry) const;
  bool overdue(const Lock<P>& entry) const;

  // Recovery.
  bool is_live(uint32_t process_index);         // as far as is known
  bool is_alive(uint32_t process_index) const;  // asks
  void freeze(const Guard& guard, uint32_t lock_index, uint32_t storage);
  void carry_readers(const Guard& guard, uint32_t lock_index, uint32_t storage);
  Status recover_lock(const Guard& guard, uint32_t lock_index);
  void recover_process(const Guard& guard, uint32_t process_index);
  bool check_process(const Guard& guard, uint32_t process_index);
  void look_guarded(const Guard& guard, uint32_t lock_index);
  static bool is_involved(const Slot<P>& slot);
  static bool is_pending(const Slot<P>& slot);
  HolderInfo describe(const Slot<P>& slot, bool pending) const;
  void set_gate(Lock<P>& entry, uint32_t storage);
  void record_abandoned(const SlotRef& ref);
  void rebuild(const Guard& guard);
  void rebuild_slots(const Guard& guard);
  void rebuild_locks(const Guard& guard);
  void rebuild_storages(const Guard& guard);

  Memory& memory_;
  PokeSink& sink_;
  Header<P>* header_;
  char* buckets_;
  Table<Process<P>> processes_;
  Table<Lock<P>> locks_;
  Table<Storage<P>> storages_;
  Table<Slot<P>> slots_;
  Table<Extent<P>> extents_;
  uint32_t self_ = 0;
  uint32_t look_cursor_ = 0;  // a slot; 0: from the beginning
  // Guarded by the guard.
  bool fault_ = false;
  bool wake_later_ =
      false;  // the poker's death would be noticed: the system calls can wait until the guard is free
  std::vector<Atomic<uint32_t>*> wakes_;
  std::vector<uint32_t> poked_here_;
};

template <class P>
Arena<P>::Arena(Memory& memory, PokeSink& sink)
    : memory_(memory),
      sink_(sink),
      header_(reinterpret_cast<Header<P>*>(memory.base())),
      buckets_(memory.base() + Layout<P>::kBuckets),
      processes_{memory.base() + Layout<P>::kProcesses, &header_->processes, &Process<P>::slots_head,
                 kProcessesMax, Layout<P>::kProcesses},
      locks_{memory.base() + Layout<P>::kLocks, &header_->locks, &Lock<P>::next_in_bucket, kLocksMax,
             Layout<P>::kLocks},
      storages_{memory.base() + Layout<P>::kStorages, &header_->storages, &Storage<P>::next, kStoragesMax,
                Layout<P>::kStorages},
      slots_{memory.base() + Layout<P>::kSlots, &header_->slots, &Slot<P>::lock_next, kSlotsMax,
             Layout<P>::kSlots},
      extents_{memory.base() + Layout<P>::kExtents, &header_->extents, &Extent<P>::next, kExtentsMax,
               Layout<P>::kExtents} {}

// ---- the guard

template <class P>
Arena<P>::Guard::Guard(Arena& arena) : arena_(arena) {
  const MutexState state = P::lock(&arena.header_->guard, kPatienceNs);
  if (state == MutexState::kStalled) refused_ = Status::kStalled;
  if (state == MutexState::kBroken) refused_ = Status::kCorrupt;
  if (!ok(refused_)) return;
  bool owner_died = state == MutexState::kOwnerDied;
  if (!enter(&owner_died)) {
    P::unlock(&arena.header_->guard);
    refused_ = Status::kStalled;
    return;
  }
  locked_ = true;
  arena.fault_ = false;
  if (owner_died) arena.rebuild(*this);
}

template <class P>
bool Arena<P>::Guard::enter(bool* owner_died) {
  Atomic<uint32_t>& owner = arena_.header_->guard_owner;
  const uint32_t us = arena_.self_ == 0 ? kNewcomer : arena_.self_;
  uint64_t deadline = 0;
  for (;;) {
    uint32_t found = kNobody;
    // acquire: what the last one inside did. The mutex orders it as well, where it was not wrong.
    if (owner.compare_exchange_strong(found, us, std::memory_order_acquire)) return true;
    // A newcomer has no token yet; of its death we have the mutex's word alone.
    const bool dead = found == kNewcomer ? *owner_died : !arena_.is_alive(found);
    if (dead) {
      *owner_died = true;
      if (owner.compare_exchange_strong(found, us, std::memory_order_acquire)) return true;
    }
    const uint64_t now = P::monotonic_ns();
    if (deadline == 0) deadline = now + kPatienceNs;
    if (now >= deadline) return false;
    P::wait(&owner, found,
            std::min(deadline, now + kGuardPollNs));  // nobody wakes us: it is not worth a system call
  }
}

template <class P>
bool Arena<P>::is_alive(uint32_t process_index) const {
  ProcessIdentity identity;
  return process_index == self_ || (process_identity(process_index, &identity) &&
                                    memory_.liveness(process_index, identity) == Liveness::kAlive);
}

template <class P>
Arena<P>::Guard::~Guard() {
  if (!locked_) return;
  std::vector<uint32_t> poked;
  std::vector<Atomic<uint32_t>*> wakes;
  poked.swap(arena_.poked_here_);
  wakes.swap(arena_.wakes_);
  // release: pairs with enter().
  arena_.header_->guard_owner.store(kNobody, std::memory_order_release);
  P::unlock(&arena_.header_->guard);
  for (Atomic<uint32_t>* word : wakes) P::wake(word);
  if (!poked.empty()) arena_.sink_.poked(poked);
}

// ---- tables

// The entry, or null where the index is none of the table's.
template <class P>
template <class T>
T* Arena<P>::find(Table<T>& table, uint32_t index) const {
  if (index == 0) return nullptr;
  if (index > table.limit.load(std::memory_order_relaxed)) {
    const uint32_t reserved = std::min(get(table.meta->reserved), table.max);
    if (index > reserved) return nullptr;
    table.limit.store(reserved, std::memory_order_relaxed);
  }
  return reinterpret_cast<T*>(table.base) + (index - 1);
}

template <class P>
template <class T>
T& Arena<P>::at(Table<T>& table, uint32_t index) {
  T* entry = find(table, index);
  if (entry != nullptr) return *entry;
  fault_ = true;
  return *table.dummy;
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
  set(table.meta->free_count, get(table.meta->free_count) + 1);
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

// visit(index, slot) returns false to stop; it may remove the slot it is given.
template <class P>
template <class Visit>
void Arena<P>::each_slot(const Atomic<uint32_t>& head, const Links& links, Visit visit) {
  uint32_t steps = 0;
  for (uint32_t index = get(head); index != 0 && !fault_;) {
    Slot<P>& entry = slot(index);
    const uint32_t next = get(entry.*links.next);
    if (++steps > kSlotsMax) fault_ = true;
    if (fault_ || !visit(index, entry)) return;
    index = next;
  }
}

template <class P>
typename Arena<P>::SlotRef Arena<P>::resolve(uint32_t slot_index) {
  SlotRef ref;
  ref.slot_index = slot_index;
  ref.slot = &slot(slot_index);
  ref.lock_index = get(ref.slot->lock);
  ref.lock = &lock(ref.lock_index);
  return ref;
}

template <class P>
Status Arena<P>::bind_slot(const Guard& guard, uint32_t lock_index, uint32_t thread, SlotRef* ref) {
  Lock<P>& entry = lock(lock_index);
  Process<P>& owner = process(self_);
  uint32_t index;
  const Status status = allocate(slots_, &index);
  if (!ok(status)) return status;
  Slot<P>& fresh = slot(index);
  if (fault_) return Status::kCorrupt;
  fresh.word.store(kIdleWord, std::memory_order_relaxed);
  fresh.since.store(0, std::memory_order_relaxed);
  set(fresh.wake, 0);
  set(fresh.ticket, 0);
  set(fresh.thread, thread);
  fresh.process.store(static_cast<uint16_t>(self_), std::memory_order_relaxed);
  fresh.flags.store(0, std::memory_order_relaxed);
  set(fresh.queue_next, 0);
  set(fresh.queue_prev, 0);
  // release, because: a rebuild after our death takes the slot for bound exactly if it finds the lock in it.
  fresh.lock.store(lock_index, std::memory_order_release);
  lock_used(guard, lock_index);
  push_slot(entry.slots_head, kByLock, index);
  push_slot(owner.slots_head, kByProcess, index);
  *ref = resolve(index);
  return guard.status();
}

template <class P>
void Arena<P>::take_off_doorbell(const Guard&, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  if ((entry.flags.load(std::memory_order_relaxed) & kSlotOnDoorbell) == 0) return;
  Atomic<uint32_t>* link = &process(entry.process.load(std::memory_order_relaxed)).poked_head;
  for (uint32_t steps = 0; get(*link) != slot_index; steps++) {
    if (get(*link) == 0 || steps > kSlotsMax) fault_ = true;
    if (fault_) return;
    link = &slot(get(*link)).poked_next;
  }
  set(*link, get(entry.poked_next));
}

// The slot refers to nothing and is not in the queue.
template <class P>
void Arena<P>::unbind_slot(const Guard& guard, uint32_t slot_index) {
  Slot<P>& entry = slot(slot_index);
  const uint32_t lock_index = get(entry.lock);
  Lock<P>& of = lock(lock_index);
  Process<P>& owner = process(entry.process.load(std::memory_order_relaxed));
  if (fault_) return;
  take_off_doorbell(guard, slot_index);
  remove_slot(of.slots_head, nullptr, kByLock, slot_index);
  remove_slot(owner.slots_head, nullptr, kByProcess, slot_index);
  entry.lock.store(0, std::memory_order_release);
  entry.word.store(0, std::memory_order_relaxed);
  free_entry(slots_, slot_index);
  if (get(of.slots_head) == 0) lock_unused(guard, lock_index);
}

template <class P>
Status Arena<P>::bind(uint32_t lock_index, uint32_t thread, SlotRef* ref) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  return bind_slot(guard, lock_index, thread, ref);
}

template <class P>
Status Arena<P>::unbind(const SlotRef& ref) {
  Guard guard(*this);
  if (ok(guard.status())) unbind_slot(guard, ref.slot_index);
  return guard.status();
}

// ---- attaching

template <class P>
Status Arena<P>::attach(const ProcessIdentity& self) {
  Guard guard(*this);
  if (!ok(guard.status())) return guard.status();
  // The dead are found now, not when their entries are wanted: an opener may want what they held.
  const uint32_t known = used(processes_);
  for (uint32_t n = 0; n < std::min(known, kLookProcessesMax); n++) check_process(guard, n + 1);

  std::vector<uint32_t> not_ours;  // entries given back by a process that has not closed its descriptor yet
  Status status;
  uint32_t index = 0;
  bool claimed = false;
  for (bool looked = false; !claimed;) {
    status = allocate(processes_, &index);
    if (ok(status)) {
      claimed = memory_.claim(index, self);
      if (!claimed) not_ours.push_back(index);
      continue;
    }
    if (looked) break;
    looked = true;
    for (uint32_t n = 1; n <= known; n++) check_process(guard, n);
  }
  for (const uint32_t other : not_ours) free_entry(processes_, other);
  if (!claimed) return status;
  Process<P>& entry = process(index);
  entry.pid.store(self.pid, std::memory_order_relaxed);
  entry.start_time.store(self.start_time, std::memory_order_relaxed);
  entry.pid_ns.store(self.pid_ns, std::memory_order_relaxed);
  set(entry.doorbell, 0);
  set(entry.poked_head, 0);
  set(entry.slots_head, 0);
  entry.state.store(static_cast<uint32_t>(ProcessState::kLive), std::memory_order_release);
  header_->attach_epoch.fetch_add(1, std::memory_order_relaxed);
  self_ = index;
  return guard.status();
}

// All slots of this process were given back. The caller closes the descriptor afterwards, and with it goes the token.
template <class P>
Status Arena<P>::detach() {
  Guard guard(*this);
  if (!ok(guard.status()) || self_ == 0) return guard.status();
  Process<P>& entry = process(self_);
  entry.state.store(static_cast<uint32_t>(ProcessState::kFree), std::memory_order_release);
  free_entry(processes_, self_);
  self_ = 0;
  return guard.status();
}

template <class P>
bool Arena<P>::process_identity(uint32_t index, ProcessIdentity* identity) const {
  auto& table = const_cast<Table<Process<P>>&>(processes_);
  const Process<P>* entry = find(table, index);
  if (entry == nullptr || get(entry->state) != static_cast<uint32_t>(ProcessState::kLive)) return false;
  identity->pid = entry->pid.load(std::memory_order_relaxed);
  identity->start_time = entry->start_time.load(std::memory_order_relaxed);
  identity->pid_ns = entry->pid_ns.load(std::memory_order_relaxed);
  return true;
}

}  // namespace proclock
