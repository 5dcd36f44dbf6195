// One lock: who may be in together, tokens, downgrade, the abandoned mark.
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

struct Scene {
  Scene() : one(segment.name()), two(segment.name()), mine(one.open("lock")), theirs(two.open("lock")) {}
  uint64_t token() const { return mine.lock->token.load(std::memory_order_relaxed); }
  uint32_t mark() const { return mine.lock->abandoned.load(std::memory_order_relaxed); }
  harness::Segment segment;
  Member one;
  Member two;
  Ref mine;
  Ref theirs;
};

TEST("shared and shared get in together; every other pair excludes, between processes and within one") {
  Scene s;
  const Ref same_process = s.one.open("lock");
  for (const Mode first : {kS, kX}) {
    for (const Mode second : {kS, kX}) {
      const Try expected = first == kS && second == kS ? Try::kAcquired : Try::kBusy;
      CHECK_EQ(s.one.acquire(s.mine, first), Try::kAcquired);
      CHECK_EQ(s.two.acquire(s.theirs, second), expected);
      CHECK_EQ(s.one.acquire(same_process, second), expected);
      if (expected == Try::kAcquired) {
        s.two.release(s.theirs);
        s.one.release(same_process);
      }
      s.one.release(s.mine);
    }
  }
  CHECK_EQ(s.two.acquire(s.theirs, kX), Try::kAcquired);
}

TEST("two names do not exclude each other") {
  Scene s;
  const Ref other = s.two.open("another lock");
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  CHECK_EQ(s.two.acquire(other, kX), Try::kAcquired);
}

TEST("a release of what is not held is refused and changes nothing") {
  Scene s;
  CHECK_EQ(s.one.arena->release(s.mine), Status::kNotHeld);
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  s.one.release(s.mine);
  CHECK_EQ(s.one.arena->release(s.mine), Status::kNotHeld);
  CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kNotHeld);
  CHECK_EQ(s.two.acquire(s.theirs, kX), Try::kAcquired);
}

TEST("the token grows with every exclusive grant, in whichever process, and with nothing else") {
  Scene s;
  uint64_t last = s.token();
  for (int n = 0; n < 100; n++) {
    Member& who = n % 2 == 0 ? s.one : s.two;
    const Ref& ref = n % 2 == 0 ? s.mine : s.theirs;
    CHECK_EQ(who.acquire(ref, kX), Try::kAcquired);
    CHECK_EQ(s.token(), last + 1);
    last = s.token();
    CHECK_EQ((n % 2 == 0 ? s.two : s.one).acquire(n % 2 == 0 ? s.theirs : s.mine, kX), Try::kBusy);
    who.release(ref);
    CHECK_EQ(who.acquire(ref, kS), Try::kAcquired);
    who.release(ref);
    CHECK_EQ(s.token(), last);
  }
}

TEST("a token starts from the wall clock, above every token of the time before") {
  const uint64_t before = TestPlatform::wall_ns();
  Scene s;
  CHECK(s.token() >= before);
  CHECK(s.token() <= TestPlatform::wall_ns());
}

TEST("a downgraded hold admits readers and excludes writers, and its release is one of a reader") {
  Scene s;
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  const uint64_t token = s.token();
  CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kOk);
  CHECK_EQ(s.token(), token);
  CHECK_EQ(s.two.acquire(s.theirs, kX), Try::kBusy);
  CHECK_EQ(s.two.acquire(s.theirs, kS), Try::kAcquired);
  CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kNotHeld);
  s.one.release(s.mine);
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kBusy);
  s.two.release(s.theirs);
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  audit(s.one);
}

TEST("no writer gets in between an exclusive hold and the shared one that it is downgraded to", 120) {
  struct Page {
    std::atomic<uint64_t> value{0};  // changed by exclusive holders alone
    std::atomic<int> done{0};
  };
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  constexpr int kRounds = 1000;
  std::vector<pid_t> children;
  for (int n = 0; n < 2; n++) {
    children.push_back(harness::start([&] {
      Member self(segment.name());
      const Ref ref = self.open("lock");
      for (int round = 0; round < kRounds; round++) {
        CHECK_EQ(acquire_waiting(self, ref, kX), Status::kOk);
        const uint64_t mine = page->value.fetch_add(1) + 1;
        CHECK_EQ(self.arena->downgrade(ref), Status::kOk);
        CHECK_EQ(page->value.load(), mine);
        self.release(ref);
      }
    }));
  }
  for (const pid_t child : children) JOIN_OK(child);
  CHECK_EQ(page->value.load(), 2u * kRounds);
}

TEST("a downgrade lets the readers in that wait at the head of the queue, and not the writer behind them") {
  Scene s;
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  const Ref writer = s.two.open("lock");
  CHECK_EQ(s.two.queue(s.theirs, kS, proclock::kSlotAsync), Status::kAgain);
  CHECK_EQ(s.two.queue(writer, kX, proclock::kSlotAsync), Status::kAgain);
  CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kOk);
  CHECK(s.two.pokes() == std::vector<uint32_t>{s.theirs.slot_index});
  CHECK_EQ(s.two.react(s.theirs, kS), Status::kOk);
  CHECK_EQ(s.two.react(writer, kX), Status::kAgain);
  s.two.release(s.theirs);
  s.one.release(s.mine);
  CHECK_EQ(s.two.react(writer, kX), Status::kOk);
}

TEST("a thief is alone: whoever held learns of it, and neither releases nor downgrades what is not theirs") {
  for (const Mode mode : {kS, kX}) {
    Scene s;
    CHECK_EQ(s.one.acquire(s.mine, mode), Try::kAcquired);
    CHECK_EQ(s.one.arena->check_hold(s.mine), Status::kOk);
    const uint64_t robbed = s.one.token;
    s.two.steal(s.theirs);
    CHECK(s.two.token > robbed);
    CHECK_EQ(s.two.token, s.token());
    CHECK(s.one.pokes() == std::vector<uint32_t>{s.mine.slot_index});
    CHECK_EQ(s.one.arena->check_hold(s.mine), Status::kStolen);
    CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kNotHeld);
    CHECK_EQ(s.one.arena->finish(s.mine, proclock::Finished::kRepair), Status::kNotHeld);
    CHECK_EQ(s.one.arena->release(s.mine), Status::kStolen);
    CHECK_EQ(s.one.arena->release(s.mine), Status::kNotHeld);
    for (const Mode other : {kS, kX}) CHECK_EQ(s.one.acquire(s.mine, other), Try::kBusy);
    s.two.release(s.theirs);
    CHECK_EQ(s.mark(), 0u);
    CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
    CHECK_EQ(s.one.token, s.two.token + 1);
    CHECK_EQ(audit(s.one).storages, 1u);
  }
}

TEST("a thief may rob a thief, and all readers at once; waiters keep their places, and get it afterwards") {
  Scene s;
  const Ref more = s.one.open("lock");
  const Ref waiter = s.one.open("lock");
  CHECK_EQ(s.one.acquire(s.mine, kS), Try::kAcquired);
  CHECK_EQ(s.one.acquire(more, kS), Try::kAcquired);
  CHECK_EQ(s.one.queue(waiter, kX, proclock::kSlotAsync), Status::kAgain);
  s.two.steal(s.theirs);
  CHECK(s.one.pokes() == (std::vector<uint32_t>{s.mine.slot_index, more.slot_index}));
  CHECK_EQ(s.one.arena->release(more), Status::kStolen);
  s.one.steal(more);
  CHECK(s.two.pokes() == std::vector<uint32_t>{s.theirs.slot_index});
  CHECK_EQ(s.two.arena->release(s.theirs), Status::kStolen);
  CHECK_EQ(s.one.arena->release(s.mine), Status::kStolen);
  CHECK_EQ(s.one.react(waiter, kX), Status::kAgain);
  s.one.release(more);
  CHECK(s.one.pokes() == std::vector<uint32_t>{waiter.slot_index});
  CHECK_EQ(s.one.react(waiter, kX), Status::kOk);
}

TEST("a holder that is found dead is not robbed: the thief inherits the abandoned mark") {
  Scene s;
  {
    Member dead(s.segment.name());
    CHECK_EQ(dead.acquire(dead.open("lock"), kX), Try::kAcquired);
    dead.vanish();
  }
  s.one.steal(s.mine);
  CHECK_EQ(s.mark(), 1u);
  CHECK_EQ(s.one.arena->abandoned(s.mine).token, s.one.token - 1);
}

// In two processes, since the one that is in A6 is stopped there.
TEST(
    "an acquirer that is robbed before it knows its token starts again: tokens grow in the order of the "
    "grants") {
  struct Page {
    std::atomic<int> prepared{0};
    std::atomic<uint64_t> token{0};
  };
  // Every step of an exclusive acquire.
  for (uint64_t step = 1;; step++) {
    harness::Segment segment;
    Page* page = harness::shared<Page>();
    Member boss(segment.name());
    const Ref ref = boss.open("lock");
    const pid_t straggler = harness::start([&] {
      Member self(segment.name());
      const Ref slot = self.open("lock");
      TestPlatform::loads_count = true;
      TestPlatform::arm(step, [] { kill(getpid(), SIGSTOP); });
      while (self.acquire(slot, kX) != Try::kAcquired) {
        TestPlatform::disarm();
        usleep(50);
      }
      TestPlatform::disarm();
      page->token.store(self.token);
      const Status status = self.arena->release(slot);
      CHECK(status == Status::kOk || status == Status::kStolen);
      self.unbind(slot);
    });
    int status = 0;
    CHECK(waitpid(straggler, &status, WUNTRACED) == straggler);
    const bool stopped = WIFSTOPPED(status);
    if (stopped) {
      boss.steal(ref);
      const uint64_t stolen = boss.token;
      CHECK_EQ(kill(straggler, SIGCONT), 0);
      // In with a smaller token, or not in: then it waits for us.
      usleep(1000);
      CHECK(page->token.load() < stolen);
      boss.release(ref);
      JOIN_OK(straggler);
      CHECK(page->token.load() != stolen);
      CHECK(ref.lock->token.load(std::memory_order_relaxed) >= page->token.load());
    } else {
      CHECK_EQ(status, 0);
    }
    munmap(page, sizeof *page);
    if (!stopped) break;
  }
}

TEST("the abandoned mark stays for all who come after, until an exclusive holder clears it") {
  Scene s;
  {
    Member dead(s.segment.name());
    CHECK_EQ(dead.acquire(dead.open("lock"), kX), Try::kAcquired);
    dead.vanish();
  }
  s.one.look_at_all();
  for (const Mode mode : {kS, kX, kS}) {
    CHECK_EQ(s.one.acquire(s.mine, mode), Try::kAcquired);
    CHECK_EQ(s.mark(), 1u);
    s.one.release(s.mine);
  }
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  CHECK_EQ(s.one.arena->finish(s.mine, proclock::Finished::kRepair), Status::kOk);
  s.one.release(s.mine);
  CHECK_EQ(s.two.acquire(s.theirs, kX), Try::kAcquired);
  CHECK_EQ(s.mark(), 0u);
}

TEST("finished flights are counted beside the mark, which they leave alone, by holders only") {
  using proclock::Finished;
  Scene s;
  const auto flights = [&] { return s.one.arena->flights(s.mine.lock_index); };
  CHECK_EQ(flights(), 0u);
  CHECK_EQ(s.one.arena->finish(s.mine, Finished::kFlight), Status::kNotHeld);
  // One that has downgraded since as well.
  for (uint32_t flight = 1; flight <= 2; flight++) {
    CHECK_EQ(s.one.acquire(s.mine, flight == 1 ? kX : kS), Try::kAcquired);
    if (flight == 2) CHECK_EQ(s.one.arena->finish(s.mine, Finished::kRepair), Status::kNotHeld);
    CHECK_EQ(s.one.arena->finish(s.mine, Finished::kFlight), Status::kOk);
    s.one.release(s.mine);
    CHECK_EQ(flights(), flight);
  }
  CHECK(!proclock::is_abandoned(s.mark()));
  {
    Member dead(s.segment.name());
    CHECK_EQ(dead.acquire(dead.open("lock"), kX), Try::kAcquired);
    CHECK_EQ(dead.arena->finish(dead.open("lock"), Finished::kFlight),
             Status::kNotHeld);  // another slot of its
    dead.vanish();
  }
  s.one.look_at_all();
  CHECK(proclock::is_abandoned(s.mark()));
  CHECK_EQ(flights(), 2u);
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  CHECK_EQ(s.one.arena->finish(s.mine, Finished::kRepair), Status::kOk);
  CHECK_EQ(s.one.arena->finish(s.mine, Finished::kFlight), Status::kOk);
  s.one.release(s.mine);
  CHECK(!proclock::is_abandoned(s.mark()));
  CHECK_EQ(flights(), 3u);
}

TEST("a reader that dies beside the abandoned mark does not take it away") {
  Scene s;
  for (const Mode mode : {kX, kS}) {
    Member dead(s.segment.name());
    CHECK_EQ(dead.acquire(dead.open("lock"), mode), Try::kAcquired);
    dead.vanish();
    s.one.look_at_all();
  }
  CHECK_EQ(s.mark(), 1u);
}

TEST("the second of two holders in a row that died is the one that is told of") {
  Scene s;
  uint64_t token = 0;
  for (int n = 0; n < 2; n++) {
    Member dead(s.segment.name());
    const Ref ref = dead.open("lock");
    CHECK_EQ(dead.acquire(ref, kX), Try::kAcquired);
    token = s.token();
    dead.vanish();
    s.one.look_at_all();
  }
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  CHECK_EQ(s.one.arena->abandoned(s.mine).token, token);
}

TEST("a downgrade clears the mark: who lets others see the data has repaired them") {
  Scene s;
  {
    Member dead(s.segment.name());
    CHECK_EQ(dead.acquire(dead.open("lock"), kX), Try::kAcquired);
    dead.vanish();
  }
  s.one.look_at_all();
  CHECK_EQ(s.one.acquire(s.mine, kX), Try::kAcquired);
  CHECK_EQ(s.one.arena->downgrade(s.mine), Status::kOk);
  CHECK_EQ(s.two.acquire(s.theirs, kS), Try::kAcquired);
  CHECK_EQ(s.mark(), 0u);
}

TEST("processes that hammer one lock in all modes never meet where they must not", 120) {
  harness::Segment segment;
  Oracle* oracle = harness::shared<Oracle>();
  std::vector<pid_t> children;
  for (int n = 0; n < 4; n++) {
    children.push_back(harness::start([&] {
      Member self(segment.name());
      const Ref ref = self.open("lock");
      for (int round = 0; round < 2000; round++) {
        const Mode mode = (round * 7 + n) % 3 == 0 ? kX : kS;
        // Try first, as callers do: then there is overtaking, and there are pokes under way.
        if (self.acquire(ref, mode) != Try::kAcquired)
          CHECK_EQ(acquire_waiting(self, ref, mode), Status::kOk);
        oracle->enter(mode);
        if (round % 64 == 0) usleep(1);
        oracle->leave(mode);
        self.release(ref);
      }
      self.unbind(ref);
    }));
  }
  for (const pid_t child : children) JOIN_OK(child);
  CHECK_EQ(oracle->violations.load(), 0u);
  Member member(segment.name());
  CHECK_EQ(audit(member).slots, 0u);
}

}  // namespace
