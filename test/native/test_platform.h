// The platform that the core runs on, and on which a process dies (or does something else) at the step that it was told.
//
// A step is whatever others can see or that asks the kernel: each store and read-modify-write of shared memory, the latch's
// among them, each try, unlock and init of a rwlock, each sleep and wake-up, each reservation of pages, each claim of a token
// and each question about one. Loads are steps on demand: to die before a load leaves what it leaves to die before the next
// step that is none, but to be stopped before it is another matter than to be stopped after it. The process acts *before* its
// k-th step. The layout is that of System.
//
// Its latch is patient: on a busy machine its owner may well be off the processor for longer than the core likes to wait.
#pragma once

#include <set>

#include "../../native/platform/core.h"
#include "../../native/runtime/process.h"
#include "harness.h"

struct TestPlatform : proclock::System {
  using Base = proclock::System;

  static inline uint64_t taken = 0;
  static inline uint64_t acts_at = 0;  // 0: steps are not counted
  static inline bool loads_count = false;
  static inline void (*act)() = nullptr;

  static void arm(uint64_t step, void (*then)()) {
    taken = 0;
    act = then;
    acts_at = step;
  }
  static void disarm() { acts_at = 0; }
  static void step() {
    if (acts_at != 0 && ++taken == acts_at) act();
  }

  template <class T>
  class Atomic {
   public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;
    Atomic() = default;
    Atomic(T value) : value_(value) {}
    T load(std::memory_order order) const {
      if (loads_count) step();
      return value_.load(order);
    }
    void store(T value, std::memory_order order) {
      step();
      value_.store(value, order);
    }
    T exchange(T value, std::memory_order order) {
      step();
      return value_.exchange(value, order);
    }
    T fetch_add(T value, std::memory_order order) {
      step();
      return value_.fetch_add(value, order);
    }
    T fetch_or(T value, std::memory_order order) {
      step();
      return value_.fetch_or(value, order);
    }
    T fetch_and(T value, std::memory_order order) {
      step();
      return value_.fetch_and(value, order);
    }
    bool compare_exchange_strong(T& expected, T value, std::memory_order order) {
      step();
      return value_.compare_exchange_strong(expected, value, order);
    }
    bool compare_exchange_weak(T& expected, T value, std::memory_order order) {
      step();
      return value_.compare_exchange_weak(expected, value, order);
    }
    bool compare_exchange_weak(T& expected, T value, std::memory_order success, std::memory_order failure) {
      step();
      return value_.compare_exchange_weak(expected, value, success, failure);
    }
    std::atomic<T>* plain() { return &value_; }

   private:
    std::atomic<T> value_{0};
  };

  static bool try_lock(RwLock* lock, proclock::Mode mode) {
    step();
    return Base::try_lock(lock, mode);
  }
  static void unlock(RwLock* lock) {
    step();
    Base::unlock(lock);
  }
  static void init(RwLock* lock) {
    step();
    Base::init(lock);
  }
  static inline uint64_t latch_patience_ns = 20000000000;
  static inline uint64_t latch_pause_ns = 0;

  // Every thread but the main one stays where it has unlocked this mutex, for as long as it is named here. That of an arena is
  // locked around its latch, so that is a place right behind the latch.
  class LocalMutex {
   public:
    void lock() {
      mutex_.lock();
      last_locked = this;
    }
    void unlock() {
      mutex_.unlock();
      if (behind.load() != this || gettid() == getpid()) return;
      held_up.fetch_add(1);
      while (behind.load() == this) usleep(200);
    }
    static inline thread_local const LocalMutex* last_locked = nullptr;
    static inline std::atomic<const LocalMutex*> behind{nullptr};
    static inline std::atomic<int> held_up{0};

   private:
    std::mutex mutex_;
  };

  // This process's clock, which no other process can read: it may be hours ahead of theirs, or behind.
  static inline int64_t ahead_ns = 0;
  static inline uint64_t frozen_ns = 0;  // 0: it runs
  static uint64_t monotonic_ns() {
    return (frozen_ns == 0 ? Base::monotonic_ns() : frozen_ns) + static_cast<uint64_t>(ahead_ns);
  }

  template <class T>
  static void wait(Atomic<T>* word, uint32_t seen, uint64_t deadline_ns) {
    step();
    Base::wait(word->plain(), seen, system_time(deadline_ns));
    // A clock that stands still is moved by whoever sleeps.
    if (frozen_ns != 0 && deadline_ns != proclock::kNoDeadline) {
      const uint64_t slept_until = deadline_ns - static_cast<uint64_t>(ahead_ns);
      if (static_cast<uint32_t>(word->plain()->load()) == seen && slept_until > frozen_ns)
        frozen_ns = slept_until;
    }
  }
  static void wake(Atomic<uint32_t>* word) {
    step();
    Base::wake(word->plain());
  }
  static void wake(Atomic<uint64_t>* word, bool all) {
    step();
    Base::wake(word->plain(), all);
  }
  struct Sleep {
    Atomic<uint32_t>* word;
    uint32_t seen;
  };
  // Whoever serves the doorbells stays awake at this place, right before it sleeps.
  static inline std::atomic<bool> stays_awake{false};
  static inline std::atomic<int> kept_awake{0};
  // Whoever serves sleeps until it is woken, whatever tick is due.
  static inline std::atomic<bool> has_no_ticks{false};
  static constexpr size_t kSleepsMax = Base::kSleepsMax;
  // How often whoever serves has gone to sleep.
  static inline std::atomic<uint32_t> times_slept{0};
  static bool wait_for_any(const std::vector<Sleep>& sleeps, uint64_t deadline_ns) {
    times_slept.fetch_add(1);
    if (stays_awake.load()) kept_awake.fetch_add(1);
    while (stays_awake.load()) usleep(200);
    std::vector<Base::Sleep> plain;
    for (const Sleep& sleep : sleeps) plain.push_back({sleep.word->plain(), sleep.seen});
    return Base::wait_for_any(plain, has_no_ticks.load() ? proclock::kNoDeadline : system_time(deadline_ns));
  }

  static inline bool full = false;                  // no page more is to be had than there are,
  static inline size_t full_from = 0, full_to = 0;  // or none between these offsets

  class Memory : public Base::Memory {
   public:
    proclock::Status reserve(size_t offset, size_t bytes) {
      step();
      if ((full || (offset >= full_from && offset < full_to)) && !exists(offset, bytes))
        return proclock::Status::kNoSpace;
      const proclock::Status status = Base::Memory::reserve(offset, bytes);
      for (size_t at = offset; ok(status) && at < offset + bytes; at += proclock::kPage) pages.insert(at);
      return status;
    }
    bool claim(uint64_t number) {
      step();
      last_attached = this;
      return Base::Memory::claim(number);
    }
    template <class Who>
    proclock::Liveness liveness(const Who& who) const {
      step();
      return Base::Memory::liveness(who);
    }
    // As far as this process has reserved them, or they are first pages, in one segment.
    static bool exists(size_t offset, size_t bytes) {
      using Table = proclock::Layout<TestPlatform>;
      static const std::set<size_t> first = {Table::kProcesses, Table::kLocks,   Table::kStorages,
                                             Table::kSlots,     Table::kExtents, Table::kBuckets};
      for (size_t at = offset; at < offset + bytes; at += proclock::kPage) {
        if (first.count(at) == 0 && pages.count(at) == 0) return false;
      }
      return true;
    }
    static inline std::set<size_t> pages;
    // Is this process inside its latch?
    bool is_inside() const {
      return number() != 0 && proclock::latch_owner(header()->latch.plain()->load()) == number();
    }
    uint32_t rebuilds() const { return header()->rebuilds.plain()->load(); }

   private:
    proclock::Header<TestPlatform>* header() const {
      return reinterpret_cast<proclock::Header<TestPlatform>*>(base());
    }
  };
  static inline const Memory* last_attached = nullptr;
  static bool is_inside_latch() { return last_attached != nullptr && last_attached->is_inside(); }

 private:
  static uint64_t system_time(uint64_t deadline_ns) {
    if (deadline_ns == proclock::kNoDeadline) return deadline_ns;
    const uint64_t now_ns = monotonic_ns();
    return Base::monotonic_ns() + (deadline_ns > now_ns ? deadline_ns - now_ns : 0);
  }
};

static_assert(sizeof(proclock::Header<TestPlatform>) == sizeof(proclock::Header<proclock::System>) &&
                  proclock::Layout<TestPlatform>::kBytes == proclock::Layout<proclock::System>::kBytes,
              "the same segment");

namespace proclock {
extern template class Arena<TestPlatform>;
extern template class Space<TestPlatform>;
extern template class Runtime<TestPlatform>;
extern template class Client<TestPlatform>;
}  // namespace proclock
