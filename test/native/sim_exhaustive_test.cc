// The shipped core in every schedule of a few actors.
#include "sim_enumeration.h"

namespace {

TEST("no schedule of two or three actors with few switches breaks the lock", 600) {
  const uint64_t begun = harness::now_ms();
  uint64_t all = 0;
  for (const sim::enumeration::Case& the_case : sim::enumeration::kCases) {
    const uint64_t schedules = sim::enumeration::enumerate(the_case);
    all += schedules;
    printf("  %7llu schedules with up to %u switches%s: %s\n", static_cast<unsigned long long>(schedules),
           the_case.switches, the_case.dies ? ", and a death anywhere" : "", the_case.name);
    fflush(stdout);
  }
  printf("  %llu schedules, all there are, in %llu ms\n", static_cast<unsigned long long>(all),
         static_cast<unsigned long long>(harness::now_ms() - begun));
}

}  // namespace
