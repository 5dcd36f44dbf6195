// Crash points: see crash-points.mjs, which puts them into a copy of the source, and test/crash-points.test.ts.
//
// A process is armed by its JavaScript: "the n-th time that this kind of thread comes to this point, this signal". The
// signal goes to the very thread, so that not one instruction more is run: it acts before the system call returns.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

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

struct State {
  std::atomic<bool> armed{false};
  Order orders[2];
  std::atomic<int> length{0};
  std::atomic<int16_t>
      trace[kTraceMax];  // points in the order in which they were reached; below 0: by another thread
};
inline State state;

inline void reached(int point) {
  if (!state.armed.load(std::memory_order_acquire)) return;
  const bool main_thread = syscall(SYS_gettid) == getpid();
  const int at = state.length.fetch_add(1);
  if (at < kTraceMax) state.trace[at].store(static_cast<int16_t>(main_thread ? point : -1 - point));
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

#include <algorithm>

namespace crash {

// arm(thread, point, pass, signal, ...): forgets what was, and begins to record.
inline void arm(const Napi::CallbackInfo& info) {
  state.armed.store(false);
  state.length.store(0);
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

inline Napi::Value trace(const Napi::CallbackInfo& info) {
  const int length = std::min(state.length.load(), kTraceMax);
  Napi::Array points = Napi::Array::New(info.Env(), static_cast<size_t>(length));
  for (int n = 0; n < length; n++)
    points.Set(static_cast<uint32_t>(n), Napi::Number::New(info.Env(), state.trace[n]));
  return points;
}

inline void install(Napi::Env env, Napi::Object exports) {
  exports.Set("arm", Napi::Function::New(env, arm, "arm"));
  exports.Set("trace", Napi::Function::New(env, trace, "trace"));
}

}  // namespace crash
#endif
