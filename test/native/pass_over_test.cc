// Waiters that do not react (queue.h): what they cost those behind them, and how they come back. On a clock that stands still
// unless it is moved; and clocks that do not agree.
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;
constexpr uint32_t kAsync = proclock::kSlotAsync;
constexpr uint64_t kPeriodNs = Member::Arena::kUnresponsiveNs;
constexpr int64_t kTenMinutesNs = 600000000000;

struct Scene {
  Scene() : holder(segment.name()), slow(segment.name()), quick(segment.name()), held(holder.open("queue")) {
    TestPlatform::frozen_ns = TestPlatform::monotonic_ns();
    CHECK_EQ(holder.acquire(held, kX), Try::kAcquired);
  }
  Ref waiter(Member& member, uint32_t thread, Mode mode = kX, uint32_t flags = kAsync) {
    const Ref ref = member.open("queue", thread);
    CHECK_EQ(member.queue(ref, mode, flags), Status::kAgain);
    return ref;
  }
  // One period, as the holder sees it.
  void period() {
    CHECK_EQ(holder.arena->open_barrier_if_overdue(held.lock_index, &seen), Status::kOk);
    TestPlatform::frozen_ns += kPeriodNs;
    CHECK_EQ(holder.arena->open_barrier_if_overdue(held.lock_index, &seen), Status::kOk);
  }

  harness::Segment segment;
  Member holder;
  Member slow;
  Member quick;
  Ref held;
  proclock::PokeSeen seen;
};

TEST("a stopped process with 40 waits costs those behind it one period, and comes back in its order") {
  for (const uint32_t flags : {kAsync, 0u}) {
    Scene s;
    std::vector<Ref> stopped;
    for (uint32_t n = 0; n < 40; n++)
      stopped.push_back(s.waiter(s.slow, n, n % 3 == 0 ? kX : kS, n == 0 ? flags : kAsync));
    const Ref next = s.waiter(s.quick, 0);
    s.holder.release(s.held);
    s.period();
    CHECK(s.quick.take_poke(next));
    CHECK_EQ(s.quick.react(next, kX), Status::kOk);
    // It goes on: all that it has was poked, and has its place.
    for (size_t n = stopped.size(); n > 0; n--) {
      CHECK_EQ(s.slow.react(stopped[n - 1], (n - 1) % 3 == 0 ? kX : kS), Status::kAgain);
    }
    s.slow.pokes();
    s.quick.release(next);
    size_t granted = 0;
    while (granted < stopped.size()) {
      const size_t first = granted;
      for (; granted < stopped.size(); granted++) {
        const Mode mode = granted % 3 == 0 ? kX : kS;
        if (mode == kX && granted != first) break;
        CHECK_EQ(s.slow.react(stopped[granted], mode), Status::kOk);
        if (mode == kX) {
          granted++;
          break;
        }
      }
      for (size_t n = first; n < granted; n++) s.slow.release(stopped[n]);
    }
    CHECK_EQ(audit(s.holder).queued, 0u);
  }
}

TEST("a stopped process in whose places others have come since is told of each of its waits") {
  Scene s;
  std::vector<Ref> stopped;
  for (uint32_t n = 0; n < 40; n++) stopped.push_back(s.waiter(s.slow, n));
  const Ref next = s.waiter(s.quick, 0);
  s.holder.release(s.held);
  s.period();
  std::vector<uint32_t> all;
  for (const Ref& ref : stopped) all.push_back(ref.slot_index);
  std::sort(all.begin(), all.end());
  CHECK(s.slow.pokes() == all);
  CHECK(s.quick.take_poke(next));
}

TEST(
    "a thread that does not react is passed over with its waits, and another one of its process keeps its "
    "place") {
  Scene s;
  std::vector<Ref> busy;
  for (int n = 0; n < 10; n++) busy.push_back(s.waiter(s.slow, 1));
  const Ref beside = s.waiter(s.slow, 2);
  const Ref behind = s.waiter(s.quick, 0);
  s.holder.release(s.held);
  // The process takes what is on its doorbell, so it is not stopped; only thread 1 does not come to react.
  CHECK(s.slow.take_poke(busy[0]));
  s.period();
  CHECK(s.slow.take_poke(beside));
  CHECK(!s.quick.take_poke(behind));
  CHECK_EQ(s.slow.react(beside, kX), Status::kOk);
  for (const Ref& ref : busy) CHECK_EQ(s.slow.react(ref, kX), Status::kAgain);
  s.slow.release(beside);
  for (const Ref& ref : busy) {
    CHECK_EQ(s.slow.react(ref, kX), Status::kOk);
    s.slow.release(ref);
  }
  CHECK(s.quick.take_poke(behind));
  CHECK_EQ(s.quick.react(behind, kX), Status::kOk);
  audit(s.holder);
}

TEST("several stopped processes, one behind the other, cost a period each, and not one for each wait") {
  Scene s;
  std::vector<std::unique_ptr<Member>> stopped;
  for (int n = 0; n < 3; n++) {
    stopped.push_back(std::make_unique<Member>(s.segment.name()));
    for (uint32_t k = 0; k < 10; k++) s.waiter(*stopped.back(), k);
  }
  const Ref next = s.waiter(s.quick, 0);
  s.holder.release(s.held);
  int periods = 0;
  for (; !s.quick.take_poke(next); periods++) {
    CHECK(periods < 3);
    s.period();
  }
  CHECK_EQ(s.quick.react(next, kX), Status::kOk);
}

// ---- clocks

// This process's clock, for as long as the object lives.
class Clock {
 public:
  explicit Clock(int64_t ahead_ns) { TestPlatform::ahead_ns = ahead_ns; }
  ~Clock() { TestPlatform::ahead_ns = 0; }
};

TEST(
    "whose clock is ten minutes ahead or behind does not overtake, and its own barrier holds for the "
    "others") {
  for (const int64_t ahead_ns : {kTenMinutesNs, -kTenMinutesNs}) {
    Scene s;
    const Ref front = s.waiter(s.quick, 0);
    const Ref other = s.slow.open("queue");
    s.holder.release(s.held);
    {
      const Clock clock(ahead_ns);
      CHECK_EQ(s.slow.acquire(other, kX), Try::kBarred);
    }
    CHECK_EQ(s.slow.acquire(other, kX), Try::kAcquired);  // whose clock it is may, for a millisecond
    s.slow.release(other);
    CHECK_EQ(s.quick.react(front, kX), Status::kOk);
    s.quick.release(front);
    // The front is one of the other clock: it sets the barrier.
    CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
    {
      const Clock clock(ahead_ns);
      CHECK_EQ(s.slow.queue(other, kX, kAsync), Status::kAgain);
    }
    s.holder.release(s.held);
    CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
    const Clock clock(ahead_ns);
    CHECK_EQ(s.slow.react(other, kX), Status::kOk);
  }
}

TEST("one that does not react is passed over after a period, by whichever clock somebody looks") {
  for (const int64_t poker_ns : {int64_t{0}, kTenMinutesNs, -kTenMinutesNs}) {
    for (const int64_t looker_ns : {int64_t{0}, kTenMinutesNs, -kTenMinutesNs}) {
      Scene s;
      s.waiter(s.slow, 0);
      const Ref next = s.waiter(s.quick, 0);
      {
        const Clock clock(poker_ns);
        s.holder.release(s.held);
      }
      const Clock clock(looker_ns);
      CHECK_EQ(s.quick.arena->open_barrier_if_overdue(s.held.lock_index, &s.seen), Status::kOk);
      CHECK(!s.quick.take_poke(next));
      TestPlatform::frozen_ns += kPeriodNs;
      CHECK_EQ(s.quick.arena->open_barrier_if_overdue(s.held.lock_index, &s.seen), Status::kOk);
      CHECK(s.quick.take_poke(next));
    }
  }
}

TEST(
    "processes whose clocks are ten minutes apart share a lock, and none waits for the time that is between "
    "them",
    120) {
  harness::Segment segment;
  Oracle* oracle = harness::shared<Oracle>();
  std::vector<pid_t> children;
  for (const int64_t ahead_ns : {int64_t{0}, kTenMinutesNs, -kTenMinutesNs, 2 * kTenMinutesNs}) {
    children.push_back(harness::start([&] {
      TestPlatform::ahead_ns = ahead_ns;
      Member self(segment.name());
      const Ref ref = self.open("queue");
      for (int round = 0; round < 500; round++) {
        const Mode mode = round % 3 == 0 ? kS : kX;
        if (self.acquire(ref, mode) != Try::kAcquired)
          CHECK_EQ(acquire_waiting(self, ref, mode, round % 5 == 0 ? proclock::kSlotFair : 0), Status::kOk);
        oracle->enter(mode);
        oracle->leave(mode);
        self.release(ref);
      }
      self.unbind(ref);
    }));
  }
  for (const pid_t child : children) JOIN_OK(child);
  CHECK_EQ(oracle->violations.load(), 0u);
}

}  // namespace
