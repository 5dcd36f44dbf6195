// A readers-writer lock that is one word of shared memory, for a platform whose pthread_rwlock_t can not be used between
// processes. As everywhere in the core, nobody blocks in it: try, unlock, init.
//
// State: kWriter, or how many readers there are; 0: free. All-zero is a free lock.
//
//    T1  exclusive: 0 -> kWriter, by one CAS. Fails if there is anybody
//    T2  shared: n -> n + 1, by CAS, as long as n is below kReadersMax. Fails if there is a writer
//    T3  unlock: with the writer's bit, -> 0; otherwise n -> n - 1
//
// It excludes: kWriter is only stored over 0 (T1), nothing but T3 of its owner is stored over it (T2 refuses), and each reader
// takes away what it has added. T3 can tell by the word alone which of the two it is for: who unlocks is one of those that
// the word says, and a writer and readers are never in it together.
//
// Orders. T1 and T2 acquire, T3 releases: the next owner sees what the last one did. A reader's T3 is a read-modify-write, so
// the chain from an earlier reader's release to the writer's acquire is not broken by it. T3 is a read-modify-write for a
// writer as well: on x86 it then is a full fence, which UnixPlatform::fence_after_unlock() relies on.
//
// The content may be anybody's. Each call ends after a bounded number of steps of its own whatever it finds: T2 goes on after
// a failed CAS only as others come and go, and gives up after kTriesMax of them, which says no more than any busy lock does.
// T3 of a word that is 0 leaves it so.
#pragma once

#include <atomic>
#include <cstdint>

namespace proclock {

template <template <class> class Atomic>
struct WordRwLock {
  static constexpr uint32_t kWriter = uint32_t{1} << 31;
  static constexpr uint32_t kReadersMax = kWriter - 1;
  static constexpr int kTriesMax = 64;

  Atomic<uint32_t> word;

  bool try_exclusive() {
    uint32_t seen = 0;
    // acquire: pairs with T3.
    return word.compare_exchange_strong(seen, kWriter, std::memory_order_acquire);  // T1
  }

  bool try_shared() {
    // relaxed, because: the CAS looks again.
    uint32_t seen = word.load(std::memory_order_relaxed);
    for (int tries = 0; seen < kReadersMax && tries < kTriesMax; tries++) {
      // acquire: pairs with T3.
      if (word.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire, std::memory_order_relaxed))
        return true;  // T2
    }
    return false;
  }

  void unlock() {
    // relaxed, because: whoever unlocks is in the word since its own try, and so is the kind of what it is.
    const uint32_t seen = word.load(std::memory_order_relaxed);
    if ((seen & kWriter) != 0)
      word.exchange(0, std::memory_order_release);  // T3: pairs with T1 and T2
    else if (seen != 0)
      word.fetch_add(~uint32_t{0}, std::memory_order_release);  // T3: one less
  }

  void init() {
    word.store(0, std::memory_order_relaxed);
  }  // relaxed, because: it is published by who asked for it
};

}  // namespace proclock
