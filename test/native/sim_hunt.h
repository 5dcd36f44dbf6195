// How many schedules it takes to find something that was broken on purpose. The scenarios are to be included before: those of the
// core, or those of the runtime.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "harness.h"

namespace sim {

struct Hunt {
  bool killed = false;
  uint64_t schedules = 0;
  std::string how;  // the message of the check that failed
};

// In a child process, since a failure ends it. `run` counts in `done` what it has run.
template <class Run>
Hunt hunt_in_child(Run run) {
  struct Page {
    std::atomic<uint64_t> done{0};
  };
  Page* page = harness::shared<Page>();
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t pid = harness::start([&] {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    run(page->done);
  });
  close(ends[1]);
  Hunt result;
  char part[4096];
  for (ssize_t bytes; (bytes = read(ends[0], part, sizeof part)) > 0;)
    result.how.append(part, static_cast<size_t>(bytes));
  close(ends[0]);
  const int status = harness::join(pid);
  result.killed = status != 0;
  result.how = WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                   : result.how.substr(0, result.how.find('\n'));
  result.schedules = page->done.load(std::memory_order_relaxed);
  munmap(page, sizeof *page);
  return result;
}

// `breaks` is called first. `only`: the name of the scenario to hunt in, if it is not all of them in turn.
template <class Break>
Hunt hunt(uint64_t schedules, uint64_t first_seed, bool weak_only, Break breaks, const char* only = nullptr) {
  uint32_t first = 0;
  while (only != nullptr && strcmp(kScenarios[first].name, only) != 0) CHECK(++first < kScenariosCount);
  const uint32_t count = only == nullptr ? kScenariosCount : 1;
  return hunt_in_child([&](std::atomic<uint64_t>& done) {
    breaks();
    Schedule schedule;
    schedule.weak_only = weak_only;
    for (uint64_t n = 0; n < schedules; n++) {
      done.store(n + 1, std::memory_order_relaxed);
      schedule.run(first + static_cast<uint32_t>(n % count), first_seed + n / count);
    }
  });
}

}  // namespace sim
