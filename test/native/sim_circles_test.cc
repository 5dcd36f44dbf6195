// Waits that go round in circles, and others, in schedules made of seeds. PROCLOCK_SIM_CIRCLE=seed runs one of them again and prints each
// step; PROCLOCK_SIM_CIRCLES sets their number, PROCLOCK_SIM_FIRST the first seed.
#include "sim_circles.h"

namespace {

TEST("of each circle one fails or all are told, and nobody else", 600) {
  sim::Circle circle;
  if (const char* again = getenv("PROCLOCK_SIM_CIRCLE")) {
    sim::the_machine.verbose = true;
    circle.run(strtoull(again, nullptr, 10));
    return;
  }
  const uint64_t schedules = harness::number_from("PROCLOCK_SIM_CIRCLES", 20000);
  const uint64_t first = harness::number_from("PROCLOCK_SIM_FIRST", 1);
  const uint64_t begun = harness::now_ms();
  uint64_t closed = 0, failed = 0, warned = 0, deaths = 0;
  for (uint64_t n = 0; n < schedules; n++) {
    circle.run(first + n);
    closed += circle.closed();
    failed += static_cast<uint64_t>(circle.failed());
    warned += circle.warned();
    deaths += sim::the_machine.deaths;
  }
  const auto n = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  printf("  %llu schedules in %llu ms: %llu circles, %llu ended by an error, %llu told; %llu deaths\n",
         n(schedules), n(harness::now_ms() - begun), n(closed), n(failed), n(warned), n(deaths));
  CHECK(failed > schedules / 20 && warned > schedules / 50);
}

}  // namespace
