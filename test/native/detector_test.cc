// The detector's turns (detect.h): how soon a death is noticed, whoever ticks.
#include <sys/resource.h>

#include "world.h"

namespace {

constexpr Mode kX = Mode::kExclusive;

bool may_open(rlim_t files_max) {
  rlimit files = {};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_cur >= files_max) return true;
  printf("  skipped: only %llu files may be open\n", static_cast<unsigned long long>(files.rlim_cur));
  return false;
}

// A holder that is dead, behind so many that live.
struct Crowd {
  explicit Crowd(uint32_t others) : boss(segment.name()), ref(boss.open("lock")) {
    for (uint32_t n = 0; n < others; n++) members.push_back(std::make_unique<Member>(segment.name()));
    add_dead("lock");
  }
  void add_dead(const std::string& name) {
    Member holder(segment.name());
    CHECK_EQ(holder.acquire(holder.open(name), kX), Try::kAcquired);
    holder.vanish();
  }
  uint64_t recoveries() { return boss.arena->header().recoveries.load(std::memory_order_relaxed); }
  // Ticks until the dead one is recovered; the first one only begins to look.
  uint32_t turns(Member& by, proclock::ScanSeen* seen) {
    const uint64_t before = recoveries();
    uint32_t turns = 0;
    while (recoveries() == before) {
      CHECK_EQ(by.arena->tick(seen), Status::kOk);
      turns++;
      CHECK(turns < 10000);
    }
    return turns;
  }
  harness::Segment segment;
  Member boss;
  Ref ref;
  std::vector<std::unique_ptr<Member>> members;
};

TEST("a dead holder behind 2,000 live processes is found within 40 turns, and within two if it is waited for",
     120) {
  if (!may_open(proclock::kProcessesMax + 64)) return;
  Crowd crowd(2000);
  proclock::ScanSeen seen;
  const uint32_t turns = crowd.turns(crowd.boss, &seen);
  printf("  found after %u turns\n", turns);
  CHECK(turns <= 41);
  CHECK_EQ(crowd.boss.acquire(crowd.ref, kX), Try::kAcquired);
  crowd.boss.release(crowd.ref);
  // Pointed out by somebody who waits: the holder, and a reader among many.
  crowd.add_dead("lock");
  crowd.boss.arena->want(crowd.ref.lock_index);
  CHECK(crowd.turns(crowd.boss, &seen) <= 2);
  // Many that are waited for, and live, do not keep the others from being asked.
  crowd.add_dead("another");
  const auto want_many = [&] {
    for (auto& bits : crowd.boss.arena->header().wanted)
      bits.store(~uint64_t{0} << 1 & 0xffff, std::memory_order_relaxed);
  };
  const uint64_t before = crowd.recoveries();
  uint32_t slow = 0;
  for (; crowd.recoveries() == before; slow++) {
    CHECK(slow < 200);
    want_many();
    CHECK_EQ(crowd.boss.arena->tick(&seen), Status::kOk);
  }
  printf("  beside many that are waited for: after %u turns\n", slow);
}

TEST("of many that tick at the same time one has a turn, and a wish is one bit that is asked first") {
  Crowd crowd(100);
  proclock::ScanSeen seen[3];
  Member* who[3] = {&crowd.boss, crowd.members[0].get(), crowd.members[1].get()};
  for (int n = 0; n < 3; n++) CHECK_EQ(who[n]->arena->tick(&seen[n]), Status::kOk);
  const auto scan = [&] { return crowd.boss.arena->header().scan.load(std::memory_order_relaxed); };
  for (int round = 0; round < 20; round++) {
    const uint64_t before = scan();
    for (int n = 0; n < 3; n++)
      CHECK_EQ(who[(round + n) % 3]->arena->tick(&seen[(round + n) % 3]), Status::kOk);
    CHECK_EQ(scan() >> proclock::kTurnShift,
             (before >> proclock::kTurnShift) + (round == 0 ? 1 : scan() != before));
    CHECK((scan() >> proclock::kTurnShift) - (before >> proclock::kTurnShift) <= 1);
  }
}

TEST("a wish of one that can not get the latch is not lost") {
  Crowd crowd(100);
  Member& inside = *crowd.members[0];
  proclock::ScanSeen seen;
  CHECK_EQ(crowd.boss.arena->tick(&seen), Status::kOk);
  crowd.boss.arena->want(crowd.ref.lock_index);
  TestPlatform::latch_patience_ns = 1000000;
  {
    Member::Arena::Latched latched(*inside.arena);
    for (int n = 0; n < 3; n++) CHECK_EQ(crowd.boss.arena->tick(&seen), Status::kStalled);
  }
  CHECK_EQ(crowd.turns(crowd.boss, &seen), 1u);
}

TEST("one that has the turn, and stops or dies at any step of it, costs the others one round") {
  for (const bool dies : {false, true}) {
    for (uint64_t step = 1;; step++) {
      harness::context = dies ? "dies in its turn" : "stops in its turn";
      harness::context_step = static_cast<int64_t>(step);
      Crowd crowd(20);
      static std::atomic<bool>* inside = harness::shared<std::atomic<bool>>();
      inside->store(false);
      crowd.boss.arena->want(crowd.ref.lock_index);
      const pid_t ticker = harness::start([&] {
        Member self(crowd.segment.name());
        proclock::ScanSeen seen;
        self.arena->tick(&seen);
        TestPlatform::loads_count = !dies;
        TestPlatform::arm(step, dies ? [] {
          inside->store(TestPlatform::is_inside_latch());
          kill(getpid(), SIGKILL);
        } : [] {
          inside->store(TestPlatform::is_inside_latch());
          kill(getpid(), SIGSTOP);
        });
        CHECK_EQ(self.arena->tick(&seen), Status::kOk);
        TestPlatform::disarm();
      });
      int status = 0;
      CHECK(waitpid(ticker, &status, WUNTRACED) == ticker);
      if (status == 0) break;
      proclock::ScanSeen seen;
      // Two turns for a round over so few; one tick more to begin with.
      uint32_t turns = 0;
      while (!inside->load() && crowd.boss.acquire(crowd.ref, kX) != Try::kAcquired) {
        CHECK(turns++ <= 4);
        CHECK_EQ(crowd.boss.arena->tick(&seen), Status::kOk);
      }
      if (WIFSTOPPED(status)) {
        CHECK_EQ(kill(ticker, SIGCONT), 0);
        JOIN_OK(ticker);
      }
    }
  }
}

TEST("whatever the scan word and the wanted bits say, a turn asks and goes on") {
  Crowd crowd(30);
  proclock::ScanSeen seen;
  auto& header = crowd.boss.arena->header();
  for (const uint64_t word : {~uint64_t{0}, uint64_t{0xffff}, uint64_t{1} << 63}) {
    header.scan.store(word, std::memory_order_relaxed);
    for (auto& bits : header.wanted) bits.store(~uint64_t{0}, std::memory_order_relaxed);
    seen.word = word;
    CHECK_EQ(crowd.boss.arena->tick(&seen), Status::kOk);
    crowd.boss.arena->want(0);
    crowd.boss.arena->want(~0u);
  }
  for (auto& bits : header.wanted) bits.store(0, std::memory_order_relaxed);
  CHECK(crowd.recoveries() == 1 || crowd.turns(crowd.boss, &seen) <= 4);
}

}  // namespace
