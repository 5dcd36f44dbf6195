// The memory orders on which the arguments of protocol.h, queue.h and latch.h turn are made weaker, one at a time, and the
// exploration has to notice. (The core asks for more than these: behind the latch, and where a read-modify-write reads the
// latest value anyway, a weaker order would do as well. L7 needs no more than the kernel gives. PROCLOCK_SIM_ORDERS=all tries
// every one there is, and prints what became of it.)
#include "sim_scenarios.h"
// After the scenarios.
#include "sim_hunt.h"

namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kAcquire = std::memory_order_acquire;

struct Needed {
  const char* step;
  const char* file;
  const char* function;
  char kind;  // l: load, s: store, m: read-modify-write, c: compare and exchange, f: fence
  std::memory_order order;
  bool to_relaxed;  // or else to acquire and release
  int nth;          // of those in the function
};

const Needed kNeeded[] = {
    {"A2", "protocol.h", "try_acquire", 'c', kSeqCst, false, 0},
    {"A3", "protocol.h", "try_acquire", 'l', kSeqCst, false, 0},
    {"A4, IDLE after it", "protocol.h", "become_idle", 's', kRelease, true, 0},
    {"A5", "protocol.h", "try_acquire", 'c', kSeqCst, true, 1},
    {"R2 before R3", "protocol.h", "release_duty", 'f', kSeqCst, true, 0},
    {"W2 before W3", "wait.h", "react", 'f', kSeqCst, true, 0},
    {"S1", "transfer.h", "steal", 'm', kSeqCst, false, 0},
    {"V1", "recovery.h", "recover_lock", 'm', kSeqCst, false, 0},
    {"V2", "recovery.h", "operator()", 'l', kSeqCst, false, 0},
    {"V5", "recovery.h", "set_gate", 'c', kSeqCst, true, 0},
    {"E3", "recovery.h", "leave", 'm', kRelease, true, 0},
    {"E3, looked at", "recovery.h", "recover_threads", 'm', kAcquire, true, 0},
    {"L1", "latch.h", "enter_latch", 'c', kAcquire, true, 0},
    {"L2", "latch.h", "enter_latch_slow", 'c', kAcquire, true, 0},
    {"L9", "latch.h", "leave_latch", 'c', kRelease, true, 0},
};

const char* file_of(const sim::OrderSite& order) {
  const char* slash = strrchr(order.site.file, '/');
  return slash == nullptr ? order.site.file : slash + 1;
}

std::vector<sim::OrderSite> all_orders() {
  std::vector<sim::OrderSite> sites;
  sim::the_machine.order_sites = &sites;
  sim::Schedule schedule;
  for (uint64_t n = 0; n < 4000; n++) {
    schedule.run(static_cast<uint32_t>(n % sim::kScenariosCount), 1 + n / sim::kScenariosCount);
  }
  sim::the_machine.order_sites = nullptr;
  std::sort(sites.begin(), sites.end(), [](const auto& a, const auto& b) {
    const int files = strcmp(a.site.file, b.site.file);
    return files != 0 ? files < 0 : a.site.line < b.site.line;
  });
  return sites;
}

bool hunt(const sim::OrderSite& order, const char* step, bool to_relaxed, uint64_t schedules) {
  const sim::Hunt hunt = sim::hunt(schedules, 1, true, [&] {
    sim::the_machine.weakening = {order.site.file, order.site.line};
    sim::the_machine.weaken_to_relaxed = to_relaxed;
  });
  const char* made = order.kind == 'f' ? "no fence" : to_relaxed ? "relaxed" : "acq_rel";
  printf("  %-8s %s %s:%d %s, %c, %s: %llu schedules %s\n", hunt.killed ? "found" : "SURVIVED", step,
         file_of(order), order.site.line, order.site.function, order.kind, made,
         static_cast<unsigned long long>(hunt.schedules), hunt.how.c_str());
  fflush(stdout);
  return hunt.killed;
}

TEST("whoever weakens a memory order that an argument needs is found out", 900) {
  const std::vector<sim::OrderSite> sites = all_orders();
  if (const char* which = getenv("PROCLOCK_SIM_ORDERS"); which != nullptr && strcmp(which, "all") == 0) {
    for (const sim::OrderSite& order : sites) {
      if (strstr(order.site.file, "native/") == nullptr) continue;
      if (order.order == kSeqCst && order.kind != 'f') hunt(order, "", false, 20000);
      hunt(order, "", true, 20000);
    }
    return;
  }
  int survived = 0;
  for (const Needed& needed : kNeeded) {
    int nth = 0;
    bool found = false;
    for (const sim::OrderSite& order : sites) {
      if (strcmp(file_of(order), needed.file) != 0 || strcmp(order.site.function, needed.function) != 0)
        continue;
      if (order.kind != needed.kind || order.order != needed.order || nth++ != needed.nth) continue;
      found = hunt(order, needed.step, needed.to_relaxed, 100000);
    }
    survived += !found;
  }
  CHECK_EQ(survived, 0);
}

}  // namespace
