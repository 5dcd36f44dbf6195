// A process dies before every single step of every operation, one after another, and each time whoever lives must find a
// lock that is free, excludes, tells of an abandoned hold exactly if there was one, and has lost nothing.
//
// Each scenario is a play with a fixed cast, on a segment of its own, once per step. The *boss* lives: it sets the stage
// and checks at the end. The *victim* does the operation. *Waiters* are live processes in the queue that sleep without
// a timeout of less than the test's patience: a lost wake-up fails. In scenarios about recovery somebody is dead before.
// The scenario is over with the first step number that the operation does not reach any more. PROCLOCK_DEATH_STRIDE=3 takes
// every third step.
#include "death_scenarios.h"

namespace {

// After the death. Everybody who lives goes on; then nothing may be missing.
void check_aftermath(Stage& s) {
  Member& boss = s.boss;
  const bool abandoned = s.abandoned || proclock::holds(s.page->last_word.load(), Mode::kExclusive);
  boss.look_at_all();
  if (s.may_be_robbed && s.was_robbed()) {
    // It is told even if the thief died in between.
    CHECK_EQ(boss.arena->take_poked(&boss.told), Status::kOk);
    CHECK(boss.was_told(s.ref));
    boss.told.clear();
  } else if (s.holds) {  // and still does, whatever was rebuilt around it
    const Ref probe = boss.bind(s.ref, 3);
    CHECK_EQ(boss.acquire(probe, Mode::kExclusive, Turn::kFront), Try::kBusy);
    boss.unbind(probe);
  }
  s.be_upgraded();
  s.let_go();
  if (s.async.slot != nullptr) {
    // Tries only when it is told to, as an event loop does.
    CHECK(harness::eventually([&] {
      CHECK_EQ(Member::unstalled([&] { return boss.arena->take_poked(&boss.told); }), Status::kOk);
      if (!boss.was_told(s.async)) return false;
      boss.told.clear();
      const Status status = boss.react(s.async, s.async_mode);
      CHECK(status == Status::kOk || status == Status::kAgain);
      return status == Status::kOk;
    }));
    s.page->oracle.enter(s.async_mode);
    s.page->oracle.leave(s.async_mode);
    boss.release(s.async);
    boss.unbind(s.async);
  }
  for (const pid_t waiter : s.waiters) JOIN_OK(waiter);
  CHECK_EQ(s.page->granted.load(), s.waiters.size());
  boss.look_at_all();  // and those waiters are gone

  const uint64_t token = s.ref.lock->token.load(std::memory_order_relaxed);
  CHECK_EQ(boss.acquire(s.ref, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(s.ref.lock->token.load(std::memory_order_relaxed), token + 1);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), abandoned ? 1u : 0u);
  const Ref other = boss.bind(s.ref, 2);
  CHECK_EQ(boss.acquire(other, Mode::kExclusive), Try::kBusy);
  CHECK_EQ(boss.acquire(other, Mode::kShared), Try::kBusy);
  CHECK_EQ(Member::unstalled([&] { return boss.arena->finish(s.ref, proclock::Finished::kRepair); }),
           Status::kOk);
  boss.release(s.ref);
  CHECK_EQ(boss.acquire(s.ref, Mode::kShared), Try::kAcquired);
  CHECK_EQ(boss.acquire(other, Mode::kShared), Try::kAcquired);
  {
    Member newcomer(s.segment);
    const Ref slot = newcomer.open(kName);
    CHECK_EQ(slot.lock_index, s.ref.lock_index);
    CHECK_EQ(newcomer.acquire(slot, Mode::kExclusive), Try::kBusy);
    CHECK_EQ(newcomer.acquire(slot, Mode::kShared), Try::kAcquired);
    newcomer.release(slot);
    newcomer.unbind(slot);
  }
  boss.release(s.ref);
  boss.release(other);
  boss.unbind(other);
  boss.unbind(s.ref);

  const Census census = audit(boss);
  CHECK_EQ(census.processes, 1u);
  CHECK_EQ(census.slots, 0u);
  CHECK_EQ(census.queued, 0u);
  CHECK_EQ(census.retired, 0u);
  CHECK_EQ(census.storages, census.locks);
  CHECK_EQ(s.page->oracle.violations.load(), 0u);
}

// False: the victim got through without having reached the step.
bool perform(const Scenario& scenario, uint64_t step) {
  harness::context_step = static_cast<int64_t>(step);
  harness::Segment segment;
  Stage stage(segment.name());
  scenario.setup(stage);
  Page* page = stage.page;
  const pid_t victim = harness::start([&] {
    Victim v;
    v.page = page;
    the_victim = &v;
    if (scenario.attached) {
      CHECK_EQ(v.self.enter(segment.name()), Status::kOk);
      v.ref = v.self.open(kName);
    } else {
      proclock::OpenFailure failure;
      CHECK_EQ(v.self.memory.open(segment.name(), -1, &failure), Status::kOk);
      v.self.arena = std::make_unique<Member::Arena>(v.self.memory, v.self);
    }
    scenario.prepare(v);
    page->prepared.store(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    TestPlatform::arm(step, die);
    scenario.act(v);
    TestPlatform::disarm();
    record_last_word();
    _exit(0);  // as dead as if it had been killed, after the last step
  });
  CHECK(harness::eventually([&] { return page->prepared.load() == 1; }));
  scenario.meanwhile(stage);
  page->go.store(1);
  const int status = harness::join(victim);
  CHECK(harness::killed(status) || harness::ended_well(status));
  check_aftermath(stage);
  munmap(page, sizeof *page);
  return harness::killed(status);
}

TEST("a death at any step of any operation wedges nothing, opens nothing and loses nothing", 300) {
  const uint64_t stride = harness::number_from("PROCLOCK_DEATH_STRIDE", 1);
  uint64_t pairs = 0;
  const uint64_t begun = harness::now_ms();
  for (const Scenario& scenario : kScenarios) {
    harness::context = scenario.name;
    uint64_t deaths = 0;
    while (perform(scenario, 1 + deaths * stride)) deaths++;
    pairs += deaths + 1;
    printf("  %4llu steps of: %s\n", static_cast<unsigned long long>(deaths), scenario.name);
    fflush(stdout);
  }
  printf("  %llu (operation, step) pairs in %llu ms\n", static_cast<unsigned long long>(pairs),
         static_cast<unsigned long long>(harness::now_ms() - begun));
}

}  // namespace
