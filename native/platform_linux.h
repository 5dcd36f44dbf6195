// Linux: pthread objects with PTHREAD_PROCESS_SHARED, futexes, OFD byte locks, pidfds.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "layout.h"
#include "platform.h"

namespace proclock {

struct LinuxPlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using RwLock = pthread_rwlock_t;
  using Mutex = pthread_mutex_t;
  class Memory;

  static void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
  // The same after an unlock. On x86 that has been one: both libcs publish it by a locked instruction, as any must that
  // has to learn whether somebody waits.
  static void fence_after_unlock() {
#if defined(__x86_64__)
    std::atomic_signal_fence(std::memory_order_seq_cst);
#else
    fence();
#endif
  }

  static bool try_lock(RwLock* lock, Mode mode) {
    return (mode == Mode::kExclusive ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0;
  }
  static void unlock(RwLock* lock) { pthread_rwlock_unlock(lock); }
  static void init(RwLock* lock);

  static void init(Mutex* mutex);
  static MutexState lock(Mutex* mutex, uint64_t patience_ns);
  static void unlock(Mutex* mutex) { pthread_mutex_unlock(mutex); }

  static uint64_t monotonic_ns();
  static uint64_t wall_ns();
  static double wall_ms();

  static void wait(Atomic<uint32_t>* word, uint32_t seen, uint64_t deadline_ns);
  static void wake(Atomic<uint32_t>* word);

  static ProcessIdentity self();
  static uint64_t start_time(int32_t pid);  // 0: no such process, or unknown
};

using LinuxLayout = Layout<LinuxPlatform>;

// What open() found when it refused a segment, for the message.
struct OpenFailure {
  int error = 0;  // errno of the call that failed; 0: the content or the owner was the reason
  uint32_t found_version = 0;
  uint32_t found_abi = 0;
};

// Libc family and the sizes of what it puts into the segment: builds that differ here must not share one.
uint32_t abi_fingerprint();

// One open segment: the only owner of its file descriptor and mapping.
class LinuxPlatform::Memory {
 public:
  Memory() = default;
  ~Memory() { reset(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // `name` is a shm_open name; `group` a gid, or -1 for a namespace of this user alone. On success the attach phase
  // has begun: until attached(), no newcomer can re-initialise the segment.
  Status open(const char* name, int64_t group, OpenFailure* failure);
  void attached();

  char* base() const { return base_; }
  Status reserve(size_t offset, size_t bytes);

  // The liveness token of a process entry: an OFD lock on one byte beyond the end of the file, which the kernel drops
  // together with the last descriptor, that is, when the process is gone and can no longer touch the segment.
  bool claim(uint32_t process, const ProcessIdentity& self);
  Liveness liveness(uint32_t process, const ProcessIdentity& identity) const;

  // kRemoved when the file's name is gone, kCorrupt when the file shrank under us.
  Status check() const;
  // Lets go of mapping and descriptor. Unlocks nothing itself: the child of a fork() shares our description and with it
  // our token, and resets its copy as well.
  void reset();

 private:
  Status open_file(const char* name, int64_t group);
  Status check_owner(int64_t group) const;
  Status prepare();
  Status inspect(bool* initialise);
  Status initialise();
  Status map();
  Status lock_attach(short type);
  bool anybody_alive() const;
  Status fail(int error);
  // Is the descriptor still the file that is mapped? A host that daemonizes closes it, and the number is used again.
  bool is_ours() const;

  int fd_ = -1;
  uint64_t device_ = 0;
  uint64_t inode_ = 0;
  char* base_ = nullptr;
  uint32_t self_ = 0;
  ProcessIdentity identity_;
  OpenFailure failure_;
};

}  // namespace proclock
