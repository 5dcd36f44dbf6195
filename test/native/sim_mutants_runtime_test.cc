// Each mutant of runtime-mutants.mjs is to be found by the simulation of the runtime. PROCLOCK_SIM_MUTANT=NAME hunts one of them
// alone; PROCLOCK_SIM_SCHEDULES sets how long.
#include "harness.h"

// Everything once more, with the mutants in it.
#define SIM_MUTANTS
#define proclock proclock_mutants
#define sim sim_mutants_runtime
#include "sim_runtime_scenarios.h"
// After the scenarios.
#include "sim_hunt.h"

namespace {

using proclock::Mutant;

// In processes of their own, as in sim_runtime_test.cc.
constexpr uint64_t kBatch = 3000;

const char* why_not_hunted(const char* name) {
  for (const auto& entry : proclock::kNotHunted) {
    if (strcmp(entry[0], name) == 0) return entry[1];
  }
  return nullptr;
}

sim::Hunt hunt(Mutant mutant, uint64_t schedules) {
  sim::Hunt hunt;
  for (uint64_t done = 0; done < schedules && !hunt.killed; done += kBatch) {
    const uint64_t before = hunt.schedules;
    hunt = sim::hunt(std::min(kBatch, schedules - done), 1 + done / sim::kScenariosCount, false, [&] {
      proclock::mutant = mutant;
      sim::sleeps_before_it_says = mutant == Mutant::SLEEPS_BEFORE_IT_SAYS;
    });
    hunt.schedules += before;
  }
  return hunt;
}

TEST("every argument of the runtime that is broken on purpose is found out", 900) {
  for (const char* line : proclock::kStale) {
    if (line[0] != '\0') harness::fail("test/native/mutants.mjs", 0, line);
  }
  const char* only = getenv("PROCLOCK_SIM_MUTANT");
  const uint64_t schedules = harness::number_from("PROCLOCK_SIM_SCHEDULES", 200000);
  int found = 0, survived = 0, skipped = 0;
  const uint64_t begun = harness::now_ms();
  for (int n = proclock::kFirstOfRuntime; n < static_cast<int>(Mutant::kCount); n++) {
    const char* name = proclock::kMutantNames[n];
    if (only != nullptr && strcmp(only, name) != 0) continue;
    if (only == nullptr && why_not_hunted(name) != nullptr) {
      skipped++;
      printf("  -        %-22s %s\n", name, why_not_hunted(name));
      continue;
    }
    const sim::Hunt found_out = hunt(static_cast<Mutant>(n), schedules);
    ++(found_out.killed ? found : survived);
    printf("  %-8s %-22s %6llu schedules%s%s\n", found_out.killed ? "found" : "SURVIVED", name,
           static_cast<unsigned long long>(found_out.schedules), found_out.killed ? ":" : "",
           found_out.how.c_str());
    fflush(stdout);
  }
  printf("  %d mutants found, %d survived, %d not hunted, in %llu ms\n", found, survived, skipped,
         static_cast<unsigned long long>(harness::now_ms() - begun));
  CHECK_EQ(survived, 0);
}

}  // namespace
