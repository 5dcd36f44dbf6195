// The platform that the core runs on, and on which a process dies (or does something else) at the step that it was told.
//
// A step is whatever others can see or that asks the kernel: each store and read-modify-write of shared memory, each try,
// unlock and init of a rwlock, each lock and unlock of the guard, each wake-up, each reservation of pages and each claim
// of a liveness token. Loads are steps on demand: to die before a load leaves what it leaves to die before the next step
// that is none, but to be stopped before it is another matter than to be stopped after it. The process acts *before* its k-th step. The layout is that of LinuxPlatform.
//
// Its guard is patient: on a busy machine its owner may well be off the processor for longer than the core likes to wait.
#pragma once

#include "../../native/core.h"
#include "harness.h"

struct TestPlatform : proclock::LinuxPlatform {
  using Base = proclock::LinuxPlatform;

  static inline uint64_t taken = 0;
  static inline uint64_t acts_at = 0;  // 0: steps are not counted
  static inline bool loads_count = false;
  static inline int guards = 0;  // how many guards this process is in
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
  static inline uint64_t guard_patience_ns = 20000000000;
  static proclock::MutexState lock(Mutex* mutex, uint64_t) {
    step();
    const proclock::MutexState state = Base::lock(mutex, guard_patience_ns);
    if (state == proclock::MutexState::kLocked || state == proclock::MutexState::kOwnerDied) guards++;
    return state;
  }
  static void unlock(Mutex* mutex) {
    step();
    guards--;
    Base::unlock(mutex);
  }
  // This process's clock, which decides who may overtake and what is overdue.
  static inline uint64_t ahead_ns = 0;
  static inline uint64_t frozen_ns = 0;  // 0: it runs
  static uint64_t monotonic_ns() { return (frozen_ns == 0 ? Base::monotonic_ns() : frozen_ns) + ahead_ns; }

  static void wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns) {
    Base::wait(word->plain(), seen, deadline_ns);
  }
  static void wake(Atomic<uint32_t>* word) {
    step();
    Base::wake(word->plain());
  }

  static inline bool full = false;                  // no page more is to be had,
  static inline size_t full_from = 0, full_to = 0;  // or none between these offsets

  class Memory : public Base::Memory {
   public:
    proclock::Status reserve(size_t offset, size_t bytes) {
      step();
      if (full || (offset >= full_from && offset < full_to)) return proclock::Status::kNoSpace;
      return Base::Memory::reserve(offset, bytes);
    }
    bool claim(uint32_t process, const proclock::ProcessIdentity& self) {
      step();
      return Base::Memory::claim(process, self);
    }
  };
};

static_assert(sizeof(proclock::Header<TestPlatform>) == sizeof(proclock::Header<proclock::LinuxPlatform>) &&
                  proclock::Layout<TestPlatform>::kBytes == proclock::LinuxLayout::kBytes,
              "the same segment");

namespace proclock {
extern template class Arena<TestPlatform>;
}
