// One namespace: the tables of a mapped segment, and everything that is done to them.
//
// The class is declared here as a whole and implemented by topic:
//   latch.h      the namespace's own short lock
//   tables.h     tables, bounds, lists, binding slots
//   attach.h     how a process enters and leaves
//   names.h      the name index: from a string to a lock entry and back
//   protocol.h   acquire and release: the slot protocol, with the argument why it is right
//   transfer.h   downgrade, steal, the abandoned record
//   queue.h      waiting: the queue, pokes, the barrier
//   wait.h       what a waiter does: queues itself, reacts, settles, withdraws
//   upgrade.h    from shared to exclusive, without letting go
//   recovery.h   what happens when a process, or a thread, died
//   rebuild.h    what happens when the latch's owner died
//   detect.h     how a death is noticed
//   snapshot.h   what query() shows
//   deadlock.h   who waits in a circle
//
// Conventions. A function that takes a `const Latched&` needs the latch; the parameter is the proof. A field of the segment
// is read once into a local, and that is checked and used. References go through at(), which answers an impossible index
// with a private dummy entry and remembers the fault: loops end, nothing outside the tables is touched, the operation
// reports kCorrupt, and the namespace stays corrupt (latch.h). at() also counts: who has taken more steps than content that
// is possible can ask for has found a fault as well, so that no list goes round for ever. Memory orders: behind the latch
// everything is relaxed, because the latch orders it; the slot words, gates and wake words, which are touched without it,
// say their reasons in protocol.h and queue.h.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "layout.h"
#include "types.h"
#include "wait_graph.h"

namespace proclock {

template <class P>
class Arena {
 public:
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  using Memory = typename P::Memory;
  class Latched;

  // A slot of this process with its lock, resolved once; valid as long as the slot stays bound.
  struct SlotRef {
    Slot<P>* slot = nullptr;
    Lock<P>* lock = nullptr;
    uint32_t slot_index = 0;
    uint32_t lock_index = 0;
    uint64_t tag = 0;  // of the slot's word, for as long as it is ours
  };
  // A hold of one's own, and the context that it belongs to.
  struct Owned {
    uint32_t context;
    SlotRef hold;
  };

  static constexpr uint64_t kLatchPeriodMinNs = 1000000;
  static constexpr uint64_t kLatchPeriodMaxNs = 50000000;
  static constexpr int kLatchSpins = 8;
  static constexpr uint32_t kLatchLooksMax = 1024;
  static constexpr uint64_t kPatienceNs = 1000000000;  // of a call for which there is no later
  static constexpr uint64_t kStuckPatienceNs = 20000000;
  static constexpr int kTriesMax = 16;           // of an operation that finds the lock changed each time
  static constexpr uint64_t kBargeNs = 1000000;  // how long a running process may overtake the front waiter
  static constexpr uint64_t kUnresponsiveNs = 50000000;  // after which a poked waiter is passed over
  static constexpr uint32_t kLookProcessesMax = 64;      // how many processes one look asks about
  static constexpr uint32_t kLookSlotsMax = 1 << 14;
  static constexpr uint32_t kWantSlotsMax = 64;   // how many slots of a lock a wish is derived from
  static constexpr uint32_t kWatchersMax = 8;     // so many look often whether the front reacts
  static constexpr uint32_t kLookBehindMax = 64;  // and are looked for among so many waits
  static constexpr uint32_t kSpareStorages = 8;   // kept for recovery, which must not fail for want of space
  static constexpr uint32_t kNumberTriesMax = 1000;
  static constexpr double kCycleWaitMs = 1000;  // a wait that has not lasted so long is no deadlock yet
  // What one entry into the latch may cost, in steps: so many, and once more so many for each entry in use.
  static constexpr uint64_t kStepsMin = uint64_t{1} << 20;
  static constexpr uint64_t kStepsPerEntry = 64;

  Arena(Memory& memory, PokeSink& sink);

  Header<P>& header() const { return *header_; }
  uint32_t self() const { return self_; }

  // attach.h
  Status attach(const ProcessIdentity& self);
  Status detach();
  bool read_process(uint32_t process, ProcessIdentity* identity, uint64_t* number) const;
  uint32_t processes_used() const { return used(processes_); }
  Atomic<uint32_t>* doorbell() { return &entry_of(self_)->doorbell; }

  // latch.h
  bool is_corrupt() const;
  Status condemn();
  void stay_out();
  uint64_t owner_inside() const { return latch_owner(header_->latch.load(std::memory_order_relaxed)); }
  uint64_t patience_with(uint64_t owner) const;
  bool is_stuck_with(uint64_t owner) const;
  void waited_in_vain(uint64_t owner);

  // names.h
  Status open_lock(const Name& name, uint32_t thread, SlotRef* ref);
  Status bind(uint32_t lock, uint32_t thread, SlotRef* ref);
  Status unbind(const SlotRef& ref);
  bool read_name(const Latched& latched, uint32_t lock, LockName* name);
  uint32_t marks_dropped() const { return marks_dropped_.load(std::memory_order_relaxed); }

  // protocol.h
  Try try_acquire(const SlotRef& ref, Mode mode, Turn turn, uint64_t* token);
  Status release(const SlotRef& ref);
  Status release_duty(const SlotRef& ref);
  Status check_hold(const SlotRef& ref) const;

  // transfer.h
  Status downgrade(const SlotRef& ref);
  Status steal(const SlotRef& ref, uint64_t* token);
  Status finish(const SlotRef& ref, Finished what);
  AbandonedInfo abandoned(const SlotRef& ref) const;
  uint64_t last_token(uint32_t lock) { return this->lock(lock).token.load(std::memory_order_relaxed); }
  uint32_t flights(uint32_t lock) { return flights_of(get(this->lock(lock).abandoned)); }

  // wait.h
  Status enqueue(const SlotRef& ref, Mode mode, uint32_t flags);
  Status react(const SlotRef& ref, Mode mode, uint64_t* token);
  Try try_front(const SlotRef& ref, Mode mode, uint64_t* token);
  Status settle_grant(const SlotRef& ref);
  Status withdraw(const SlotRef& ref);
  void waits_no_more(const SlotRef& ref);

  // upgrade.h
  Status upgrade(const SlotRef& ref, bool waits, uint64_t* token);
  uint32_t upgrader(const Latched& latched, uint32_t lock);

  // queue.h
  bool is_overdue(uint32_t lock, PokeSeen* seen) const;
  Status open_barrier_if_overdue(uint32_t lock, PokeSeen* seen);
  bool is_quiet(uint32_t lock, PokeSeen* seen, uint64_t for_ns) const;
  void announce_quiet(uint32_t lock);
  bool has_poked() { return get(entry_of(self_)->poked_head) != 0; }
  Status take_poked(std::vector<uint32_t>* slots);

  // recovery.h
  Status finish_recovery(uint32_t lock);
  void leave(const SlotRef& ref);
  Status recover_left();

  // detect.h
  // `periods`: of 50 ms, since the ticker's last one. `from`: a slot, where the last walk of this watcher ended; 0 at first.
  Status tick(ScanSeen* seen, uint32_t periods = 1);
  bool want(uint32_t lock, uint32_t* from = nullptr, OwedSeen* owed = nullptr);
  Status poke_owed(uint32_t lock);
  Status look(uint32_t lock);  // for somebody who was refused
  Status recover_if_dead(uint32_t process);
  Status recover_dead(uint32_t process, uint64_t number);

  // snapshot.h
  Status snapshot(uint32_t lock, std::vector<HolderInfo>* infos, bool waiters = true);
  Status snapshot_all(std::vector<HolderInfo>* infos, std::unordered_map<uint32_t, LockName>* names);
  Status snapshot_marks(std::vector<MarkedLock>* marks);
  Status place(const SlotRef& ref, uint32_t* ahead);

  // deadlock.h
  bool is_wanted(const SlotRef& hold) const;
  uint32_t told_of_cycle(const SlotRef& wait) const;
  void leave_context(const SlotRef& hold);
  Status say_contexts(const SlotRef& wait, const std::vector<Owned>& owned);
  Status copy_waits(WaitGraph* graph);
  Status look_for_cycle(const SlotRef& wait, const std::vector<Owned>& owned, CycleSeen* seen);
  Status cycle_of(const SlotRef& wait, std::vector<HolderInfo>* infos,
                  std::unordered_map<uint32_t, LockName>* names);
  Status locks_in_cycles(std::vector<LockName>* names);

 private:
  void become_idle(const SlotRef& ref, std::memory_order order);

  template <class T>
  struct Table {
    char* base;
    TableMeta<P>* meta;
    Atomic<uint32_t> T::* link;  // of the free list
    uint32_t max;
    size_t offset;
    std::unique_ptr<T> dummy = std::make_unique<T>();
    std::atomic<uint32_t> limit{0};  // entries that we know to be on reserved pages
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
  static void add(Atomic<uint32_t>& field, uint32_t value) { set(field, get(field) + value); }

  // The latch.
  Status enter_latch();
  Status enter_latch_slow();
  void enter_tables(const Latched& latched);
  void leave_latch();
  uint64_t latch_patience(uint64_t now_ns) const;
  void goes_on();
  bool is_dead(uint64_t number);

  // Tables.
  template <class T>
  [[gnu::always_inline]] T* find(const Table<T>& table, uint32_t index) const;
  template <class T>
  [[gnu::noinline, gnu::cold]] bool extend(Table<T>& table, uint32_t index);
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
  bool extend_steps();
  size_t names_bytes_max() const {
    return size_t{used(locks_)} * kNameInlineBytes + size_t{used(extents_)} * kExtentBytes;
  }
  Slot<P>& slot(uint32_t index) { return at(slots_, index); }
  Lock<P>& lock(uint32_t index) { return at(locks_, index); }
  Process<P>& process(uint32_t index) { return at(processes_, index); }
  Process<P>* entry_of(uint32_t process) { return find(processes_, process); }
  uint32_t buckets_in_use();
  Atomic<uint32_t>& bucket(uint32_t index) { return reinterpret_cast<Atomic<uint32_t>*>(buckets_)[index]; }

  // Lists of slots.
  void push_slot(Atomic<uint32_t>& head, const Links& links, uint32_t index);
  void remove_slot(Atomic<uint32_t>& head, Atomic<uint32_t>* tail, const Links& links, uint32_t index);
  template <class Visit>
  void each_slot(const Atomic<uint32_t>& head, const Links& links, Visit visit);
  static uint64_t word_of(const Slot<P>& slot) { return slot.word.load(std::memory_order_acquire); }
  static uint32_t flags_of(const Slot<P>& slot) { return get(slot.flags); }

  void take_off_doorbell(const Latched& latched, uint32_t slot_index);
  Status bind_slot(const Latched& latched, uint32_t lock, uint32_t thread, SlotRef* ref);
  void unbind_slot(const Latched& latched, uint32_t slot_index);

  // Attaching.
  Status take_number();
  Status allocate_process(const Latched& latched, uint32_t* index);

  // Names.
  static uint32_t bucket_of(uint32_t hash, uint32_t count);
  uint32_t find_lock(const Latched& latched, const Name& name, uint32_t hash);
  bool name_equals(const Lock<P>& entry, const Name& name);
  Status create_lock(const Latched& latched, const Name& name, uint32_t hash, uint32_t* index);
  Status allocate_lock(const Latched& latched, uint32_t* index);
  Status allocate_extent(const Latched& latched, uint32_t* index);
  Status write_name(const Latched& latched, Lock<P>& entry, const Name& name);
  void free_extents(uint32_t first);
  void grow_index();
  bool reclaim_oldest(const Latched& latched, bool marked_too);
  void reclaim_lock(const Latched& latched, uint32_t index);
  void unlink_name(uint32_t index);
  void lock_unused(const Latched& latched, uint32_t index);
  void lock_used(uint32_t index);

  // Storages.
  Status allocate_storage(uint32_t* index, bool for_recovery);
  Status pick_storage(const Latched& latched, uint32_t lock_index, uint32_t* index);
  void retire_storage(const Latched& latched, uint32_t lock_index, uint32_t storage);
  void reuse_retired(const Latched& latched, uint32_t lock_index, bool all);

  // Queue.
  void remove_waiter(const Latched& latched, uint32_t slot_index);
  uint32_t front(const Latched& latched, uint32_t lock_index);
  void front_changed(const Latched& latched, uint32_t lock_index);
  void poke_front(const Latched& latched, uint32_t lock_index, bool first_alone = false);
  void pass_on(const Latched& latched, uint32_t lock_index);
  void ring_behind(const Latched& latched, uint32_t lock_index, uint32_t last);
  void tell(const Latched& latched, uint32_t slot_index);
  void poke(const Latched& latched, uint32_t slot_index);
  void poke_again(const Latched& latched, uint32_t lock_index);
  void ring(const Latched& latched, uint32_t slot_index);
  void put_on_doorbell(const Latched& latched, uint32_t slot_index);
  void wake(Atomic<uint32_t>* word);
  void keep_poked(const Latched& latched, uint32_t lock_index, const Slot<P>& next);
  void pass_over(const Latched& latched, uint32_t lock_index);
  Status come_back(const SlotRef& ref, uint32_t* flags);
  bool may_overtake(const Lock<P>& entry) const;

  // Upgrading.
  void lead_queue(const Latched& latched, const SlotRef& ref);
  void demote_followers(const Latched& latched, const SlotRef& ref);
  void end_upgrade(const Latched& latched, uint32_t slot_index);
  bool has_other_holder(const Latched& latched, const SlotRef& ref);
  Status become_exclusive(const Latched& latched, const SlotRef& ref, uint64_t* token);
  void take_over(const Latched& latched, const SlotRef& ref, uint32_t current, uint32_t fresh,
                 uint64_t* token);

  // Recovery.
  bool is_live(uint32_t process_index);  // as far as is known
  bool is_gone(uint64_t word) { return is_left(word) || !is_live(owner_of(word)); }
  void freeze(const Latched& latched, uint32_t lock_index, uint32_t storage);
  void carry_readers(const Latched& latched, uint32_t lock_index, uint32_t storage);
  Status recover_lock(const Latched& latched, uint32_t lock_index);
  bool recover_slots(const Latched&, uint32_t process, bool left_alone, std::vector<uint32_t>* touched);
  void recover_process(const Latched& latched, uint32_t process_index, std::vector<uint32_t>* touched);
  void recover_threads(const Latched& latched, uint32_t process_index, std::vector<uint32_t>* touched);
  void clear_doorbell(const Latched& latched, Process<P>& owner, bool left_alone);
  void poke_touched(const Latched& latched, std::vector<uint32_t>* touched);
  bool is_found_dead(uint32_t process_index) const;
  void mark_dead(uint32_t process_index);
  void check_processes(const Latched& latched, const std::vector<uint32_t>& suspects);
  void look_latched(const Latched& latched, uint32_t lock_index);
  static bool is_involved(uint64_t word, uint32_t flags);
  static AbandonedInfo mark_of(const Lock<P>& entry);
  static bool is_pending(uint64_t word, uint32_t flags);
  static bool is_upgrading(uint64_t word, uint32_t flags);
  static bool waits(uint64_t word, uint32_t flags);
  void set_gate(Lock<P>& entry, uint32_t storage);
  void record_abandoned(Lock<P>& entry, const Slot<P>& holder, uint64_t word);

  // Detection.
  void set_wanted(uint32_t process);
  uint32_t take_wanted(uint32_t from, uint32_t most, std::vector<uint32_t>* processes);
  uint32_t count_wanted(uint32_t most) const;
  bool needs_recovery(uint32_t process_index) const;
  Status look_at_latch();

  // Rebuilding. What says false has no memory for it.
  void rebuild(const Latched& latched);
  bool rebuild_tables(const Latched& latched);
  void rebuild_processes();
  bool rebuild_locks();
  bool rebuild_slots(const Latched& latched);
  bool rebuild_queues();
  bool rebuild_storages();
  void rebuild_fronts(const Latched& latched);

  // What is shown, and deadlocks.
  HolderInfo describe(const Slot<P>& slot, uint64_t word, uint32_t flags, bool pending) const;
  void say_contexts(const Latched& latched, const SlotRef& wait, const std::vector<Owned>& owned);
  void copy_waits(const Latched& latched, WaitGraph* graph);
  uint64_t print_of(const WaitGraph& graph, const WaitGraph::Cycle& cycle);
  bool all_live(const Latched& latched, const WaitGraph& graph, const WaitGraph::Cycle& cycle);
  const WaitGraph::Wait* victim_of(const WaitGraph& graph, const WaitGraph::Cycle& cycle, bool certain);
  void tell_processes(const Latched& latched, const WaitGraph& graph, const WaitGraph::Cycle& cycle);

  Memory& memory_;
  PokeSink& sink_;
  Header<P>* header_;
  char* buckets_;
  Table<Process<P>> processes_;
  Table<Lock<P>> locks_;
  Table<Storage<P>> storages_;
  Table<Slot<P>> slots_;
  Table<Extent<P>> extents_;
  uint32_t self_ = 0;  // our entry; stays what it was when we have left
  bool attached_ = false;
  typename P::LocalMutex local_;
  std::atomic<uint64_t> stalled_until_ns_{0};
  std::atomic<uint64_t> stuck_with_{0};  // an owner of the latch that was waited for in vain; 0: nobody
  std::atomic<uint64_t> stuck_patience_ns_{0};
  std::atomic<bool> robbed_{false};
  std::atomic<uint32_t> marks_dropped_{0};
  // Of whoever has the latch.
  bool dirty_ = false;
  bool fault_ = false;
  bool incomplete_ = false;  // a rebuild gave up
  uint64_t steps_left_ = 0;
  bool steps_extended_ = false;
  uint32_t buckets_limit_ = 0;  // as Table::limit
  bool wake_later_ = false;     // not before the latch is free: the poker's death would be noticed
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

}  // namespace proclock
