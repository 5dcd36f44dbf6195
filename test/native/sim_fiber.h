// Stacks to switch between: what the actors of the simulated machine run on.
//
// Hand-written for the two processors that matter, since swapcontext() asks the kernel for the signal mask each time. A
// fiber that is left for good keeps nothing: its stack is used again.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "harness.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

namespace sim {

struct Fiber {
  static constexpr size_t kStackBytes = 256 * 1024;

  char* stack = nullptr;
  size_t stack_bytes = 0;
#if defined(__x86_64__) || defined(__aarch64__)
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
  void (*function)(void*) = nullptr;
  void* argument = nullptr;
  void* fake_stack = nullptr;  // the address sanitizer's

  void prepare(void (*run)(void*), void* with);
  // First thing on a new stack.
  void entered();
};

inline Fiber* fiber_left = nullptr;  // the one that switched to the running one

#if defined(__x86_64__)
// Saves what a call must preserve, and goes on where the other one did so.
__attribute__((naked, noinline)) inline void swap_stacks(void** /*from*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
inline void start_fiber();
inline void* first_frame(char* top) {
  auto** sp = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  *--sp = nullptr;  // where start_fiber() would return to; keeps the stack aligned as after a call
  *--sp = reinterpret_cast<void*>(&start_fiber);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  return sp;
}
#elif defined(__aarch64__)
__attribute__((naked, noinline)) inline void swap_stacks(void** /*from*/, void* /*to*/) {
  asm volatile(
      "sub sp, sp, #160\n"
      "stp x19, x20, [sp, #0]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
      "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n"
      "stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
      "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
      "ldp x19, x20, [sp, #0]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
      "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n"
      "ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
      "add sp, sp, #160\n ret\n");
}
inline void start_fiber();
inline void* first_frame(char* top) {
  auto** sp = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  sp -= 20;
  memset(sp, 0, 160);
  sp[11] = reinterpret_cast<void*>(&start_fiber);
  return sp;
}
#endif

inline Fiber* fiber_started = nullptr;
inline void start_fiber() {
  Fiber& self = *fiber_started;
  self.function(self.argument);
}

inline void Fiber::prepare(void (*run)(void*), void* with) {
  if (stack == nullptr) {
    // With a page below that faults.
    void* memory = mmap(nullptr, kStackBytes + 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED && mprotect(memory, 4096, PROT_NONE) == 0);
    stack = static_cast<char*>(memory) + 4096;
    stack_bytes = kStackBytes;
  }
#ifdef SIM_ASAN
  __asan_unpoison_memory_region(stack, stack_bytes);
#endif
  fake_stack = nullptr;
  function = run;
  argument = with;
#if defined(__x86_64__) || defined(__aarch64__)
  sp = first_frame(stack + stack_bytes);
#else
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = stack_bytes;
  context.uc_link = nullptr;
  makecontext(&context, start_fiber, 0);
#endif
}

inline void fiber_jump(Fiber& from, Fiber& to, [[maybe_unused]] void** fake_stack) {
  fiber_left = &from;
  fiber_started = &to;
#ifdef SIM_ASAN
  __sanitizer_start_switch_fiber(fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  swap_stacks(&from.sp, to.sp);
#else
  swapcontext(&from.context, &to.context);
#endif
#ifdef SIM_ASAN
  // The main fiber's stack is the thread's, whose bounds are learned here.
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(from.fake_stack, &bottom, &bytes);
  if (fiber_left->stack == nullptr) {
    fiber_left->stack = static_cast<char*>(const_cast<void*>(bottom));
    fiber_left->stack_bytes = bytes;
  }
#endif
}

inline void Fiber::entered() {
#ifdef SIM_ASAN
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (fiber_left->stack == nullptr) {
    fiber_left->stack = static_cast<char*>(const_cast<void*>(bottom));
    fiber_left->stack_bytes = bytes;
  }
#endif
}

inline void fiber_switch(Fiber& from, Fiber& to) { fiber_jump(from, to, &from.fake_stack); }
inline void fiber_leave_for_good(Fiber& from, Fiber& to) { fiber_jump(from, to, nullptr); }

}  // namespace sim
