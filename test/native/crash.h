// Crash points: see crash-points.mjs, which puts them into a copy of the source, and test/crash-points.test.ts.
//
// A process is armed by its JavaScript: "the n-th time that this kind of thread comes to this point, this signal". The
// signal goes to the very thread, so that not one instruction more is run: it acts before the system call returns.
//
// Where it has been is recorded in a file of the folder PROCLOCK_CRASH_TRACES, named by its pid: what a process did before
// it died can not be foretold from what another one did, and not be asked of it either.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>

#define CRASH_POINT(number) ::crash::reached(number)

namespace crash {

constexpr int kPointsMax = 256;
constexpr int kTraceMax = 4096;

struct Order {
  std::atomic<int> signal{0};  // 0: none; below: not a signal, but a sleep of so many ms
  int point = 0;
  int thread = 0;              // 0: the one of JavaScript, 1: the others, 2: any
  std::atomic<int> passes{0};  // to come, until it is time
};

// Read by test/support/crash.ts, up to the end of the trace.
struct State {
  std::atomic<int32_t> length{0};  // of the trace; it may have been longer than there is room for
  // The points in the order in which they were reached, from 1 on; below 0: by another thread; 0: not written yet.
  std::atomic<int16_t> trace[kTraceMax] = {};
  std::atomic<bool> armed{false};
  Order orders[2];
};

inline State& mapped() {
  int file = -1;
  if (const char* folder = std::getenv("PROCLOCK_CRASH_TRACES")) {
    const std::string path = std::string(folder) + "/" + std::to_string(getpid());
    file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof(State)) != 0) std::abort();
  }
  const int flags = MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0);
  void* memory = mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, flags, file, 0);
  if (memory == MAP_FAILED) std::abort();
  if (file >= 0) close(file);
  return *new (memory) State;
}
inline State& state = mapped();

inline void reached(int point) {
  if (!state.armed.load(std::memory_order_acquire)) return;
  const bool main_thread = syscall(SYS_gettid) == getpid();
  const int at = state.length.fetch_add(1);
  if (at < kTraceMax) state.trace[at].store(static_cast<int16_t>(main_thread ? point + 1 : -1 - point));
  for (Order& order : state.orders) {
    if (order.signal.load() == 0 || order.point != point) continue;
    if (order.thread == (main_thread ? 1 : 0)) continue;
    if (order.passes.fetch_sub(1) != 1) continue;
    const int signal = order.signal.exchange(0);
    if (signal > 0) {
      syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
    } else {
      usleep(static_cast<useconds_t>(-signal) * 1000);
    }
  }
}

}  // namespace crash

#if __has_include(<napi.h>)
#include <napi.h>

namespace crash {

// arm(thread, point, pass, signal, ...): forgets what was, and begins to record.
inline void arm(const Napi::CallbackInfo& info) {
  state.armed.store(false);
  state.length.store(0);
  for (std::atomic<int16_t>& entry : state.trace) entry.store(0);
  for (size_t n = 0; n < 2; n++) {
    Order& order = state.orders[n];
    order.signal.store(0);
    if (info.Length() < 4 * n + 4) continue;
    order.thread = info[4 * n].ToNumber().Int32Value();
    order.point = info[4 * n + 1].ToNumber().Int32Value();
    order.passes.store(info[4 * n + 2].ToNumber().Int32Value());
    order.signal.store(info[4 * n + 3].ToNumber().Int32Value());
  }
  state.armed.store(true, std::memory_order_release);
}

inline void install(Napi::Env env, Napi::Object exports) {
  exports.Set("arm", Napi::Function::New(env, arm, "arm"));
}

}  // namespace crash
#endif
