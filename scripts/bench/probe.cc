// What the machine itself can do, measured inside the process that measures proclock: the limits that its figures are
// compared with. Plain Node-API, as the calls of the uncontended path are, so that empty() costs what one of them costs.
#include <node_api.h>
#include <uv.h>

#ifdef __linux__

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <vector>

namespace {

// CLOCK_MONOTONIC, as process.hrtime(): comparable between processes.
double now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

napi_value number(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

// The only argument of a function, 0 if there is none.
uint32_t argument(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value value;
  uint32_t result = 0;
  if (napi_get_cb_info(env, info, &count, &value, nullptr, nullptr) != napi_ok || count != 1) return 0;
  napi_get_value_uint32(env, value, &result);
  return result;
}

void* map_shared(size_t bytes) {
  return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

// empty(): nothing at all. The price of any call from JavaScript.
napi_value empty(napi_env, napi_callback_info) { return nullptr; }

// number(x): an argument read and a result made; what a call that says anything costs.
napi_value echo(napi_env env, napi_callback_info info) {
  napi_value result = nullptr;
  napi_create_uint32(env, argument(env, info), &result);
  return result;
}

// rwlockPairs(n), rwlockSharedPairs(n): nanoseconds that n pairs of try and unlock of a process-shared rwlock take in C.
template <int (*try_lock)(pthread_rwlock_t*)>
napi_value rwlock_pairs(napi_env env, napi_callback_info info) {
  const uint32_t pairs = argument(env, info);
  auto* lock = static_cast<pthread_rwlock_t*>(map_shared(sizeof(pthread_rwlock_t)));
  if (lock == MAP_FAILED) return number(env, -1);
  pthread_rwlockattr_t attr;
  pthread_rwlockattr_init(&attr);
  pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_rwlock_init(lock, &attr);
  const double begin = now_ns();
  for (uint32_t i = 0; i < pairs; i++) {
    try_lock(lock);
    pthread_rwlock_unlock(lock);
  }
  const double taken = now_ns() - begin;
  munmap(lock, sizeof *lock);
  return number(env, taken);
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t seen) {
  syscall(SYS_futex, word, FUTEX_WAIT, seen, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// One side of a ping-pong: waits for its turn, `rounds` times. The word's lowest bit says whose turn it is.
void play(std::atomic<uint32_t>* word, uint32_t side, uint32_t rounds) {
  for (uint32_t round = 0; round < rounds; round++) {
    for (uint32_t seen = word->load(); (seen & 1) != side; seen = word->load()) futex_wait(word, seen);
    word->fetch_add(1);
    futex_wake(word);
  }
}

// futexPingPong(n): nanoseconds that n round trips between two processes take, each asleep while it waits.
napi_value futex_ping_pong(napi_env env, napi_callback_info info) {
  const uint32_t rounds = argument(env, info);
  auto* word = static_cast<std::atomic<uint32_t>*>(map_shared(sizeof(std::atomic<uint32_t>)));
  if (word == MAP_FAILED) return number(env, -1);
  const pid_t child = fork();
  if (child < 0) return number(env, -1);
  if (child == 0) {
    // Nothing but system calls in here: the child has one thread, and locks of those that it lacks.
    play(word, 1, rounds);
    _exit(0);
  }
  const double begin = now_ns();
  play(word, 0, rounds);
  const double taken = now_ns() - begin;
  while (waitpid(child, nullptr, 0) < 0) {
  }
  munmap(word, sizeof *word);
  return number(env, taken);
}

// loopWakeUps(n, done): an event loop that sleeps is woken n times by uv_async_send from another thread. Calls done with
// the nanoseconds from each call to the loop's callback.
struct WakeUps {
  napi_env env = nullptr;
  napi_ref done = nullptr;
  uv_async_t async;
  pthread_t thread;
  uint32_t wanted = 0;
  std::vector<double> taken;
  std::atomic<double> sent{0};
  std::atomic<uint32_t> received{0};
};

void* send_wake_ups(void* data) {
  auto* all = static_cast<WakeUps*>(data);
  for (uint32_t i = 0; i < all->wanted; i++) {
    usleep(200);  // until the loop sleeps
    all->sent.store(now_ns());
    uv_async_send(&all->async);
    while (all->received.load() == i) futex_wait(&all->received, i);
  }
  return nullptr;
}

void finish_wake_ups(uv_handle_t* handle) {
  auto* all = static_cast<WakeUps*>(handle->data);
  napi_env env = all->env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value list;
  napi_value done;
  napi_value global;
  napi_create_array_with_length(env, all->wanted, &list);
  for (uint32_t i = 0; i < all->wanted; i++) napi_set_element(env, list, i, number(env, all->taken[i]));
  napi_get_reference_value(env, all->done, &done);
  napi_get_global(env, &global);
  napi_make_callback(env, nullptr, global, done, 1, &list, nullptr);
  napi_delete_reference(env, all->done);
  napi_close_handle_scope(env, scope);
  delete all;
}

void receive_wake_up(uv_async_t* async) {
  auto* all = static_cast<WakeUps*>(async->data);
  all->taken.push_back(now_ns() - all->sent.load());
  all->received.fetch_add(1);
  futex_wake(&all->received);
  if (all->taken.size() < all->wanted) return;
  pthread_join(all->thread, nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(async), finish_wake_ups);
}

napi_value loop_wake_ups(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2];
  uv_loop_t* loop = nullptr;
  auto* all = new WakeUps();
  all->env = env;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  napi_get_uv_event_loop(env, &loop);
  if (napi_get_value_uint32(env, values[0], &all->wanted) != napi_ok || all->wanted == 0) {
    delete all;
    return nullptr;
  }
  napi_create_reference(env, values[1], 1, &all->done);
  uv_async_init(loop, &all->async, receive_wake_up);
  all->async.data = all;
  pthread_create(&all->thread, nullptr, send_wake_ups, all);
  return nullptr;
}

// kill(pid): sends SIGKILL, waits until the pidfd says that the process is gone. Returns [when it was sent, when it was
// gone] in ns of CLOCK_MONOTONIC; the second is -1 where there are no pidfds.
napi_value kill_process(napi_env env, napi_callback_info info) {
  const auto pid = static_cast<pid_t>(argument(env, info));
  if (pid <= 1) return nullptr;
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  const double sent = now_ns();
  kill(pid, SIGKILL);
  double gone = -1;
  if (fd >= 0) {
    pollfd event = {fd, POLLIN, 0};
    while (poll(&event, 1, 10000) < 0) {
    }
    gone = now_ns();
    close(fd);
  }
  napi_value result;
  napi_create_array_with_length(env, 2, &result);
  napi_set_element(env, result, 0, number(env, sent));
  napi_set_element(env, result, 1, number(env, gone));
  return result;
}

napi_value load(napi_env env, napi_value exports) {
  const napi_property_descriptor functions[] = {
      {"empty", nullptr, empty, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"echo", nullptr, echo, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"rwlockPairs", nullptr, rwlock_pairs<pthread_rwlock_trywrlock>, nullptr, nullptr, nullptr,
       napi_enumerable, nullptr},
      {"rwlockSharedPairs", nullptr, rwlock_pairs<pthread_rwlock_tryrdlock>, nullptr, nullptr, nullptr,
       napi_enumerable, nullptr},
      {"futexPingPong", nullptr, futex_ping_pong, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"loopWakeUps", nullptr, loop_wake_ups, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"kill", nullptr, kill_process, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
  return exports;
}

}  // namespace

NAPI_MODULE(proclock_bench, load)

#endif  // __linux__
