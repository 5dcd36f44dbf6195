// The platform of the lock core on the simulated machine.
#pragma once

#ifdef SIM_MUTANTS
#include "../../build/mutants/core/core.h"
#else
#include "../../native/core/core.h"
#endif

#include "../../native/platform/rwlock_word.h"
#include "sim_machine.h"

namespace sim {

using proclock::Liveness;
using proclock::Mode;
using proclock::Phase;
using proclock::ProcessIdentity;
using proclock::Status;
using proclock::Try;
using proclock::Turn;

struct Platform {
  template <class T>
  class Atomic {
   public:
    static constexpr bool is_always_lock_free = true;

    Atomic() = default;
    // Of a word that is no part of a segment: where it is, another one may have been.
    Atomic(T value) : value_(value) { the_machine.begin_word(this, bits(value)); }

    T load(std::memory_order order, Site site = Site::here()) const {
      the_machine.step(weight(order), 'l', site);
      order = the_machine.effective(site, order, 'l');
      return the_machine.weak() ? static_cast<T>(the_machine.load(this, bits(value_), order)) : value_;
    }
    void store(T value, std::memory_order order, Site site = Site::here()) {
      // To store what is there already changes nothing, wherever one dies.
      the_machine.step(weight(order), value == value_ && order == std::memory_order_relaxed ? '=' : 's',
                       site);
      order = the_machine.effective(site, order, 's');
      if (the_machine.weak()) the_machine.store(this, bits(value_), bits(value), order);
      set(value);
    }
    T exchange(T value, std::memory_order order, Site site = Site::here()) {
      return modify(value, order, site);
    }
    T fetch_add(T value, std::memory_order order, Site site = Site::here()) {
      the_machine.step(Machine::kHot, 'm', site);
      return modified(static_cast<T>(value_ + value), order, site);
    }
    T fetch_or(T value, std::memory_order order, Site site = Site::here()) {
      the_machine.step(Machine::kHot, 'm', site);
      return modified(static_cast<T>(value_ | value), order, site);
    }
    T fetch_and(T value, std::memory_order order, Site site = Site::here()) {
      the_machine.step(Machine::kHot, 'm', site);
      return modified(static_cast<T>(value_ & value), order, site);
    }
    bool compare_exchange_strong(T& expected, T value, std::memory_order order, Site site = Site::here()) {
      return exchange_if(expected, value, order, order, site);
    }
    bool compare_exchange_weak(T& expected, T value, std::memory_order order, Site site = Site::here()) {
      return exchange_if(expected, value, order, order, site);
    }
    bool compare_exchange_weak(T& expected, T value, std::memory_order success, std::memory_order failure,
                               Site site = Site::here()) {
      return exchange_if(expected, value, success, failure, site);
    }

    T latest() const { return value_; }

   private:
    // Loads and stores of words that are not half a line of a list.
    static constexpr uint32_t weight(std::memory_order order) {
      return order == std::memory_order_relaxed && sizeof(T) <= 4 ? Machine::kCold : Machine::kHot;
    }
    T modify(T value, std::memory_order order, const Site& site) {
      the_machine.step(Machine::kHot, 'm', site);
      return modified(value, order, site);
    }
    T modified(T value, std::memory_order order, const Site& site) {
      order = the_machine.effective(site, order, 'm');
      if (the_machine.weak()) the_machine.modify(this, bits(value_), bits(value), order);
      const T before = value_;
      set(value);
      return before;
    }
    bool exchange_if(T& expected, T value, std::memory_order success, std::memory_order failure,
                     const Site& site) {
      the_machine.step(Machine::kHot, 'c', site);
      success = the_machine.effective(site, success, 'c');
      if (value_ == expected) {
        modified_as(value, success);
        return true;
      }
      if (the_machine.weak()) the_machine.modify_failed(this, bits(value_), failure);
      expected = value_;
      return false;
    }
    void modified_as(T value, std::memory_order order) {
      if (the_machine.weak()) the_machine.modify(this, bits(value_), bits(value), order);
      set(value);
    }

    static constexpr uint64_t bits(T value) { return static_cast<uint64_t>(value); }
    void set(T value) {
      if (sizeof(T) == sizeof(uint32_t) && bits(value) == 0 && unnamed != nullptr &&
          (static_cast<uint32_t>(value_) & proclock::kNameUsed) != 0)
        unnamed(this);
      value_ = value;
      if (sizeof(T) == sizeof(uint64_t) && held != nullptr && proclock::is_held(bits(value)))
        held(this, bits(value));
    }

    T value_{0};
  };
  // Asked when a word of that size says HELD, if it is a slot's: may it?
  static inline void (*held)(const void* word, uint64_t value) = nullptr;
  // Told before a word of which the first bit is set becomes 0: maybe that of a lock entry that makes room.
  static inline void (*unnamed)(const void* word) = nullptr;

  static void fence(Site site = Site::here()) { the_machine.fence(site); }
  static void fence_after_unlock(Site site = Site::here()) { the_machine.fence(site); }

  // ---- the rwlock: its word is one location. A try that fails says no more than that the lock was held at a time that
  // the caller may still see. In a build for macOS it is the platform's own.

#if defined(PROCLOCK_PORTABLE) || defined(__APPLE__)
  struct RwLock : proclock::WordRwLock<Atomic> {};
  static bool try_lock(RwLock* lock, Mode mode) {
    Machine::Lock& state = the_machine.lock_state(lock);
    the_machine.use(state);
    if (!(mode == Mode::kExclusive ? lock->try_exclusive() : lock->try_shared())) return false;
    if (mode == Mode::kExclusive) state.writer = actor();
    return true;
  }
  static void unlock(RwLock* lock) {
    Machine::Lock& state = the_machine.lock_state(lock);
    the_machine.use(state);
    const uint32_t word = lock->word.latest();
    if (word == 0) the_machine.fail("a storage is unlocked that nobody has locked");
    if (word >= RwLock::kWriter && state.writer != actor()) the_machine.fail("unlocked by another thread");
    if (word >= RwLock::kWriter) state.writer = -1;
    lock->unlock();
  }
#else
  struct RwLock {
    Atomic<uint64_t> word;
    static constexpr uint64_t kWriter = uint64_t{1} << 32;
  };
  static bool try_lock(RwLock* lock, Mode mode, Site site = Site::here()) {
    Machine::Lock& state = the_machine.lock_state(lock);
    const uint64_t forbidden = mode == Mode::kExclusive ? ~uint64_t{0} : RwLock::kWriter;
    uint64_t word = lock->word.load(std::memory_order_relaxed, site);
    the_machine.use(state);
    if ((word & forbidden) != 0) return false;
    do {
      if ((word & forbidden) != 0) return false;
    } while (!lock->word.compare_exchange_weak(word, word + (mode == Mode::kExclusive ? RwLock::kWriter : 1),
                                               std::memory_order_acquire, std::memory_order_relaxed,
                                               kInside));
    if (mode == Mode::kExclusive) state.writer = actor();
    return true;
  }
  static void unlock(RwLock* lock, Site site = Site::here()) {
    Machine::Lock& state = the_machine.lock_state(lock);
    the_machine.step(Machine::kHot, 'u', site);
    the_machine.use(state);
    const uint64_t word = lock->word.latest();
    if (word == 0) the_machine.fail("a storage is unlocked that nobody has locked");
    if (word >= RwLock::kWriter && state.writer != actor()) the_machine.fail("unlocked by another thread");
    if (word >= RwLock::kWriter) state.writer = -1;
    lock->word.fetch_add(word >= RwLock::kWriter ? ~RwLock::kWriter + 1 : ~uint64_t{0},
                         std::memory_order_release, kInside);
  }
#endif
  static void init(RwLock* lock, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'i', site);
    if (initialises != nullptr) initialises(lock);
    the_machine.renew(the_machine.lock_state(lock));
    lock->word.store(0, std::memory_order_relaxed, kInside);
  }
  // Asked before a storage is initialised: does a slot of somebody alive refer to it?
  static inline void (*initialises)(const RwLock*) = nullptr;

  class LocalMutex {
   public:
    void lock(Site site = Site::here()) { the_machine.lock(state_, site); }
    void unlock(Site site = Site::here()) { the_machine.unlock(state_, site); }

   private:
    Machine::LocalMutex state_;
  };

  static void pause(Site site = Site::here()) { the_machine.yield(site); }
  static bool can_spin() { return the_machine.running() && the_machine.plan().spins; }
  static constexpr uint64_t latch_patience_ns = 5000000;
  static constexpr uint64_t latch_pause_ns = 20000000;

  static uint64_t monotonic_ns() { return the_machine.now_ns; }
  static uint64_t wall_ns() { return 1; }  // was set back: it orders nothing
  static double wall_ms() { return static_cast<double>(the_machine.now_ns) / 1e6; }

  template <class T>
  static void wait(Atomic<T>* word, uint32_t seen, uint64_t deadline_ns, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'w', site);
    if (!the_machine.running()) {
      the_machine.now_ns = std::max(the_machine.now_ns, deadline_ns == kForever ? 0 : deadline_ns);
      return;
    }
    the_machine.full_fence();
    the_machine.compared(word, word->latest());
    if (static_cast<uint32_t>(word->latest()) == seen) the_machine.sleep(word, deadline_ns, false);
    the_machine.full_fence();
  }
  static void wake(Atomic<uint32_t>* word, Site site = Site::here()) { wake_some(word, true, site); }
  static void wake(Atomic<uint64_t>* word, bool all, Site site = Site::here()) { wake_some(word, all, site); }

  class Memory;

 private:
  static constexpr Site kInside{"rwlock", "libc", 0};
  static void wake_some(const void* word, bool all, const Site& site) {
    the_machine.step(Machine::kHot, 'k', site);
    if (!the_machine.running()) return;
    the_machine.full_fence();
    if (all) {
      the_machine.wake_all(word);
    } else {
      the_machine.wake_one(word);
    }
  }
  static int actor() { return the_machine.running() ? the_machine.current().id : -2; }
};

// One namespace in ordinary memory, and whose the tokens are.
template <class P>
class BasicSegment {
 public:
  using Layout = proclock::Layout<P>;
  using Header = proclock::Header<P>;

  BasicSegment() {
    void* memory = mmap(nullptr, Layout::kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED);
    base_ = static_cast<char*>(memory);
  }
  char* base() const { return base_; }
  Header& header() const { return *reinterpret_cast<Header*>(base_); }

  void reset() {
    for (const size_t page : pages_) memset(base_ + page, 0, proclock::kPage);
    pages_.clear();
    full = false;
    for (const size_t offset : {size_t{0}, Layout::kProcesses, Layout::kLocks, Layout::kStorages,
                                Layout::kSlots, Layout::kExtents, Layout::kBuckets}) {
      reserve(offset, proclock::kPage);
    }
    owners_.clear();
    Header& h = header();
    const auto first_page = [](proclock::TableMeta<P>& meta, size_t entry) {
      meta.reserved.store(static_cast<uint32_t>(proclock::kPage / entry), std::memory_order_relaxed);
    };
    first_page(h.processes, sizeof(proclock::Process<P>));
    first_page(h.locks, sizeof(proclock::Lock<P>));
    first_page(h.storages, sizeof(proclock::Storage<P>));
    first_page(h.slots, sizeof(proclock::Slot<P>));
    first_page(h.extents, sizeof(proclock::Extent<P>));
    first_page(h.buckets, sizeof(uint32_t));
    h.buckets.used.store(proclock::kBucketsMin, std::memory_order_relaxed);
  }
  // What is there already can be reserved again, full or not.
  Status reserve(size_t offset, size_t bytes) {
    for (size_t page = offset; page < offset + bytes; page += proclock::kPage) {
      if (std::find(pages_.begin(), pages_.end(), page) != pages_.end()) continue;
      if (full) return Status::kNoSpace;
      pages_.push_back(page);
    }
    return Status::kOk;
  }

  // The process that was given this number; null if nobody was.
  Process* owner(uint64_t number) const { return number < owners_.size() ? owners_[number] : nullptr; }
  void give(uint64_t number, Process& process) {
    if (number >= owners_.size()) owners_.resize(number + 1);
    owners_[number] = &process;
  }
  void give_back(uint64_t number) { owners_[number] = nullptr; }
  // Whose a slot is, by its word.
  Process* owner_of(uint64_t word) const {
    const uint32_t entry = proclock::owner_of(word);
    return entry == 0 ? nullptr : owner(process(entry).number.latest());
  }
  const proclock::Process<P>& process(uint32_t entry) const {
    return reinterpret_cast<const proclock::Process<P>*>(base_ + Layout::kProcesses)[entry - 1];
  }
  const std::vector<Process*>& owners() const { return owners_; }

  bool full = false;  // no page more is to be had

 private:
  char* base_;
  std::vector<size_t> pages_;
  std::vector<Process*> owners_;
};

struct Segment final : BasicSegment<Platform> {
  static Segment& get() {
    static Segment segment;
    return segment;
  }
};

class Platform::Memory {
 public:
  explicit Memory(Process& process) : process_(process) {}
  char* base() const { return Segment::get().base(); }
  Status reserve(size_t offset, size_t bytes, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'p', site);
    return Segment::get().reserve(offset, bytes);
  }
  bool claim(uint64_t number, Site site = Site::here()) {
    the_machine.step(Machine::kHot, 'q', site);
    if (Segment::get().owner(number) != nullptr) return false;
    Segment::get().give(number, process_);
    number_ = number;
    return true;
  }
  // For a mutant: whose name may be seen while it has no token yet.
  void number_without_token(uint64_t number) { number_ = number; }
  uint64_t number() const { return number_; }
  bool can_ask() const { return true; }
  Liveness liveness(uint64_t number, Site site = Site::here()) const {
    the_machine.step(Machine::kHot, '?', site);
    const Process* owner = Segment::get().owner(number);
    return owner != nullptr && (owner->open || owner->token_kept) ? Liveness::kAlive : Liveness::kDead;
  }
  // Knows of a death exactly where the token does not: that of who has left its token to a child. (A pid lives on where
  // its process has become another program, and its token is gone.)
  Liveness liveness(const ProcessIdentity& identity, Site site = Site::here()) const {
    the_machine.step(Machine::kHot, '?', site);
    for (const Process* owner : Segment::get().owners()) {
      if (owner != nullptr && kFirstPid + owner->number == identity.pid && owner->token_kept)
        return Liveness::kDead;
    }
    return Liveness::kAlive;
  }
  static constexpr int32_t kFirstPid = 100;

 private:
  Process& process_;
  uint64_t number_ = 0;
};

}  // namespace sim
