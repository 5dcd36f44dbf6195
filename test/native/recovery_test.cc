// After a death, with real processes that are really killed: who gets the lock, what is told, what is given back.
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

struct Page {
  std::atomic<int> ready{0};
  std::atomic<int> go{0};
  std::atomic<int> done{0};
  std::atomic<uint64_t> token{0};
  Oracle oracle;
};

struct Scene {
  Scene() : boss(segment.name()), ref(boss.open("recovery")) {}

  // A process that does something with a slot of the lock, says so, and then stays until it is killed.
  template <class Act>
  pid_t actor(Act act) {
    const int before = page->ready.load();
    const pid_t pid = harness::start([&] {
      Member self(segment.name());
      const Ref slot = self.open("recovery", 7);
      act(self, slot);
      page->ready.fetch_add(1);
      for (;;) pause();
    });
    CHECK(harness::eventually([&] { return page->ready.load() > before; }));
    return pid;
  }
  pid_t holder(Mode mode) {
    return actor([&](Member& self, const Ref& slot) {
      CHECK_EQ(self.acquire(slot, mode), Try::kAcquired);
      if (mode == kX) page->token.store(slot.lock->token.load(std::memory_order_relaxed));
    });
  }
  pid_t async_waiter(Mode mode) {
    return actor([=](Member& self, const Ref& slot) {
      CHECK_EQ(self.queue(slot, mode, proclock::kSlotAsync), Status::kAgain);
    });
  }
  // Sleeps in the kernel, without a timeout that would help it, and ends after it got the lock.
  pid_t sleeper(Mode mode) {
    const size_t before = waiting();
    const pid_t pid = harness::start([&] {
      Member self(segment.name());
      const Ref slot = self.open("recovery");
      CHECK_EQ(acquire_waiting(self, slot, mode), Status::kOk);
      page->oracle.enter(mode);
      page->oracle.leave(mode);
      self.release(slot);
      self.unbind(slot);
    });
    CHECK(harness::eventually([&] { return waiting() > before; }));
    return pid;
  }
  std::vector<proclock::HolderInfo> snapshot() {
    std::vector<proclock::HolderInfo> infos;
    CHECK_EQ(boss.arena->snapshot(ref.lock_index, &infos), Status::kOk);
    return infos;
  }
  size_t waiting() {
    const auto infos = snapshot();
    return static_cast<size_t>(
        std::count_if(infos.begin(), infos.end(), [](const auto& info) { return info.pending; }));
  }
  uint64_t rebuilds() { return boss.arena->header().rebuilds.load(std::memory_order_relaxed); }

  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss;
  Ref ref;
};

TEST("the next holder after a killed exclusive one is told who died, and gets a greater token") {
  Scene s;
  const pid_t holder = s.holder(kX);
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kBusy);
  KILL_AND_JOIN(holder);
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kBusy);  // until somebody looks
  CHECK_EQ(s.boss.arena->look(s.ref.lock_index), Status::kOk);
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), 1u);
  const proclock::AbandonedInfo info = s.boss.arena->abandoned(s.ref);
  CHECK_EQ(info.pid, holder);
  CHECK_EQ(info.thread, 7u);
  CHECK_EQ(info.token, s.page->token.load());
  CHECK(info.since_ms > 0);
  CHECK(s.ref.lock->token.load(std::memory_order_relaxed) > info.token);
}

TEST("a killed reader leaves no abandoned mark, and lets writers in") {
  Scene s;
  const pid_t first = s.holder(kS);
  const pid_t second = s.holder(kS);
  KILL_AND_JOIN(first);
  s.boss.look_at_all();
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kBusy);  // the second one lives
  CHECK_EQ(s.boss.acquire(s.ref, kS), Try::kAcquired);
  s.boss.release(s.ref);
  KILL_AND_JOIN(second);
  s.boss.look_at_all();
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), 0u);
}

TEST(
    "live readers keep their hold when a reader beside them is killed, and give it back on the new storage") {
  Scene s;
  Member other(s.segment.name());
  const Ref beside = other.open("recovery");
  CHECK_EQ(s.boss.acquire(s.ref, kS), Try::kAcquired);
  CHECK_EQ(other.acquire(beside, kS), Try::kAcquired);
  const uint32_t old = proclock::storage_of(s.ref.lock->gate.load(std::memory_order_relaxed));
  KILL_AND_JOIN(s.holder(kS));
  s.boss.look_at_all();
  const uint32_t fresh = proclock::storage_of(s.ref.lock->gate.load(std::memory_order_relaxed));
  CHECK(fresh != old);
  const Ref writer = s.boss.open("recovery");
  for (const Ref& reader : {s.ref, beside}) {
    CHECK_EQ(proclock::storage_of(reader.slot->word.load(std::memory_order_relaxed)), fresh);
    CHECK_EQ(s.boss.acquire(writer, kX), Try::kBusy);
    (reader.slot == s.ref.slot ? s.boss : other).release(reader);
  }
  CHECK_EQ(s.boss.acquire(writer, kX), Try::kAcquired);
  other.unbind(beside);
}

TEST("a sleeping waiter of a killed holder is woken by whoever finds the death") {
  for (const Mode mode : {kS, kX}) {
    Scene s;
    const pid_t holder = s.holder(kX);
    const pid_t waiter = s.sleeper(mode);
    KILL_AND_JOIN(holder);
    s.boss.look_at_all();
    JOIN_OK(waiter);
  }
}

TEST("a waiter finds the death of the holder by itself when it looks around") {
  Scene s;
  const pid_t holder = s.holder(kX);
  const pid_t waiter = harness::start([&] {
    Member self(s.segment.name());
    const Ref slot = self.open("recovery");
    s.page->go.store(1);
    CHECK_EQ(acquire_waiting(self, slot, kX, 0, harness::kPatienceMs, 5), Status::kOk);
    CHECK_EQ(slot.lock->abandoned.load(std::memory_order_relaxed), 1u);
  });
  CHECK(harness::eventually([&] { return s.page->go.load() == 1; }));
  KILL_AND_JOIN(holder);
  JOIN_OK(waiter);
}

TEST("a killed waiter leaves the queue, and the others keep their order") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  const pid_t first = s.async_waiter(kX);
  const pid_t second = s.async_waiter(kX);
  const pid_t third = s.async_waiter(kS);
  KILL_AND_JOIN(second);
  s.boss.look_at_all();
  const auto infos = s.snapshot();
  CHECK_EQ(infos.size(), 3u);
  CHECK_EQ(infos[1].identity.pid, first);
  CHECK_EQ(infos[2].identity.pid, third);
  KILL_AND_JOIN(first);
  KILL_AND_JOIN(third);
}

TEST("nobody is shown who is dead, however many of them wait and however many slots are idle") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  for (uint32_t n = 0; n < 2 * proclock::Arena<proclock::System>::kLookProcessesMax; n++) {
    Member dead(s.segment.name());
    for (int idle = 0; idle < 8; idle++) dead.open("recovery");
    CHECK_EQ(dead.queue(dead.open("recovery"), n % 2 == 0 ? kX : kS, proclock::kSlotAsync), Status::kAgain);
    dead.vanish();
  }
  const auto infos = s.snapshot();
  CHECK_EQ(infos.size(), 1u);
  CHECK(!infos[0].pending);
}

TEST("a waiter that was killed after it had been poked hands the poke on") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  const pid_t front = s.async_waiter(kX);
  const pid_t sleeper = s.sleeper(kX);
  s.boss.release(s.ref);  // pokes the front, which does not react
  KILL_AND_JOIN(front);
  s.boss.look_at_all();
  JOIN_OK(sleeper);
}

TEST(
    "a releaser that was killed between its unlock and its poke is recovered like a holder, and not as "
    "abandoned") {
  Scene s;
  const pid_t releaser = harness::start([&] {
    Member self(s.segment.name());
    const Ref slot = self.open("recovery");
    CHECK_EQ(self.acquire(slot, kX), Try::kAcquired);
    s.page->ready.fetch_add(1);
    CHECK(harness::eventually([&] { return s.page->go.load() == 1; }));
    TestPlatform::arm(3, [] { kill(getpid(), SIGKILL); });  // R1, R2, and then the latch
    self.arena->release(slot);
  });
  CHECK(harness::eventually([&] { return s.page->ready.load() == 1; }));
  const pid_t sleeper = s.sleeper(kX);
  s.page->go.store(1);
  CHECK(harness::killed(harness::join(releaser)));
  s.boss.look_at_all();
  JOIN_OK(sleeper);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), 0u);
}

TEST("several that are killed at once, in all roles, are recovered at once") {
  Scene s;
  std::vector<pid_t> victims;
  for (int n = 0; n < 3; n++) victims.push_back(s.holder(kS));
  for (int n = 0; n < 3; n++) victims.push_back(s.async_waiter(n == 1 ? kS : kX));
  const pid_t sleeper = s.sleeper(kX);
  for (const pid_t victim : victims) CHECK_EQ(kill(victim, SIGKILL), 0);
  for (const pid_t victim : victims) CHECK(harness::killed(harness::join(victim)));
  s.boss.look_at_all();
  JOIN_OK(sleeper);
  s.boss.look_at_all();
  const Census census = audit(s.boss);
  CHECK_EQ(census.slots, 1u);
  CHECK_EQ(census.processes, 1u);
}

TEST("a stopped holder is not taken for dead") {
  Scene s;
  const pid_t holder = s.holder(kX);
  CHECK_EQ(kill(holder, SIGSTOP), 0);
  int status = 0;
  CHECK(waitpid(holder, &status, WUNTRACED) == holder && WIFSTOPPED(status));
  s.boss.look_at_all();
  CHECK_EQ(s.boss.arena->look(s.ref.lock_index), Status::kOk);
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kBusy);
  KILL_AND_JOIN(holder);
}

TEST("an unreaped child that was killed counts as dead") {
  Scene s;
  const pid_t holder = s.holder(kX);
  CHECK_EQ(kill(holder, SIGKILL), 0);
  siginfo_t info;
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(holder), &info, WEXITED | WNOWAIT), 0);
  s.boss.look_at_all();
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  CHECK(harness::killed(harness::join(holder)));
}

TEST("the next one to attach recovers from who died before") {
  Scene s;
  KILL_AND_JOIN(s.holder(kX));
  Member newcomer(s.segment.name());
  const Ref slot = newcomer.open("recovery");
  CHECK_EQ(newcomer.acquire(slot, kX), Try::kAcquired);
  CHECK_EQ(slot.lock->abandoned.load(std::memory_order_relaxed), 1u);
}

// Dies in the latch: after `step` steps of queueing up.
void die_queueing(Scene& s, uint64_t step) {
  const pid_t pid = harness::start([&] {
    Member self(s.segment.name());
    const Ref slot = self.open("recovery");
    TestPlatform::arm(step, [] {
      CHECK(TestPlatform::is_inside_latch());
      kill(getpid(), SIGKILL);
    });
    self.arena->enqueue(slot, kX, 0);
    CHECK(!"reached");
  });
  CHECK(harness::killed(harness::join(pid)));
}

TEST("after a death in the latch, the queue is rebuilt in its order, with the flags of its waiters") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  Member crowd(s.segment.name());
  std::vector<Ref> waiters;
  const uint32_t kinds[] = {proclock::kSlotAsync, 0, proclock::kSlotFair,
                            proclock::kSlotAsync | proclock::kSlotFair};
  for (int n = 0; n < 40; n++) {
    waiters.push_back(crowd.open("recovery"));
    CHECK_EQ(crowd.queue(waiters.back(), n % 3 == 0 ? kX : kS, kinds[n % 4]), Status::kAgain);
  }
  CHECK_EQ(crowd.arena->withdraw(waiters[11]), Status::kOk);
  const auto before = Auditor(s.boss.memory.base()).queue(s.ref.lock_index);
  for (const uint64_t step : {2, 5, 8, 10}) {
    const uint64_t rebuilds = s.rebuilds();
    die_queueing(s, step);
    s.boss.look_at_all();
    CHECK_EQ(s.rebuilds(), rebuilds + 1);
    CHECK(Auditor(s.boss.memory.base()).queue(s.ref.lock_index) == before);
    CHECK_EQ(audit(s.boss).queued, 39u);
  }
}

TEST("after the ticket has wrapped around, the queue is rebuilt in its order all the same") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  s.boss.arena->header().ticket.store(0xfffffffa, std::memory_order_relaxed);
  Member crowd(s.segment.name());
  for (int n = 0; n < 12; n++) {
    CHECK_EQ(crowd.queue(crowd.open("recovery"), kX, proclock::kSlotAsync), Status::kAgain);
  }
  const auto before = Auditor(s.boss.memory.base()).queue(s.ref.lock_index);
  die_queueing(s, 8);
  s.boss.look_at_all();
  CHECK(Auditor(s.boss.memory.base()).queue(s.ref.lock_index) == before);
}

TEST("after a death in the latch, every name is found again, and everything free is free") {
  Scene s;
  std::vector<Ref> refs;
  std::vector<std::string> names;
  for (int n = 0; n < 1500; n++) {
    names.push_back(std::string(static_cast<size_t>(n % 200), 'n') + std::to_string(n));
    refs.push_back(s.boss.open(names.back()));
  }
  for (int n = 0; n < 1500; n += 2) s.boss.unbind(refs[n]);
  const Census before = audit(s.boss);
  die_queueing(s, 8);
  s.boss.look_at_all();
  const Census after = audit(s.boss);
  CHECK_EQ(after.locks, before.locks);
  CHECK_EQ(after.slots, before.slots);
  CHECK_EQ(after.storages, before.storages);
  CHECK_EQ(after.extents, before.extents);
  for (int n = 0; n < 1500; n++) CHECK_EQ(s.boss.open(names[n]).lock_index, refs[n].lock_index);
}

TEST("whoever died in the latch while it held is abandoned, and sleepers behind it are served") {
  Scene s;
  const pid_t holder = harness::start([&] {
    Member self(s.segment.name());
    const Ref slot = self.open("recovery");
    CHECK_EQ(self.acquire(slot, kX), Try::kAcquired);
    s.page->ready.fetch_add(1);
    CHECK(harness::eventually([&] { return s.page->go.load() == 1; }));
    TestPlatform::arm(5, [] {
      CHECK(TestPlatform::is_inside_latch());
      kill(getpid(), SIGKILL);
    });
    self.bind(slot);
  });
  CHECK(harness::eventually([&] { return s.page->ready.load() == 1; }));
  const pid_t sleeper = s.sleeper(kX);
  s.page->go.store(1);
  CHECK(harness::killed(harness::join(holder)));
  s.boss.look_at_all();
  JOIN_OK(sleeper);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), 1u);
}

TEST(
    "a latch whose owner is stopped stalls others for a moment, and what they wanted can be done "
    "afterwards") {
  Scene s;
  CHECK_EQ(s.boss.acquire(s.ref, kX), Try::kAcquired);
  const pid_t stopped = harness::start([&] {
    Member self(s.segment.name());
    const Ref slot = self.open("recovery");
    TestPlatform::arm(8, [] {
      CHECK(TestPlatform::is_inside_latch());
      kill(getpid(), SIGSTOP);
    });
    CHECK_EQ(self.arena->enqueue(slot, kX, 0), Status::kOk);
    CHECK_EQ(self.arena->withdraw(slot), Status::kOk);
    self.unbind(slot);
  });
  int status = 0;
  CHECK(waitpid(stopped, &status, WUNTRACED) == stopped && WIFSTOPPED(status));
  const uint64_t patience_ns = TestPlatform::latch_patience_ns;
  TestPlatform::latch_patience_ns = 1000000;
  Ref other;
  CHECK_EQ(s.boss.arena->bind(s.ref.lock_index, 0, &other), Status::kStalled);
  CHECK_EQ(s.boss.arena->look(s.ref.lock_index), Status::kStalled);
  CHECK_EQ(s.boss.arena->open_lock(name_of("another"), 0, &other), Status::kStalled);
  CHECK_EQ(s.boss.arena->downgrade(s.ref), Status::kStalled);
  CHECK(proclock::holds(s.ref.slot->word.load(std::memory_order_relaxed), kX));
  CHECK_EQ(kill(stopped, SIGCONT), 0);
  JOIN_OK(stopped);
  TestPlatform::latch_patience_ns = patience_ns;
  CHECK_EQ(s.boss.arena->downgrade(s.ref), Status::kOk);
  s.boss.release(s.ref);
  audit(s.boss);
}

}  // namespace
