// A process is stopped before every single step of acquire and release, loads included, while somebody else's death makes
// its lock doubtful and others recover it, twice, and take it. When it goes on, it must not be in beside anybody, whatever
// it knew when it was stopped (INV-3, and "Why two never get in" in protocol.h).
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;
constexpr char kName[] = "stopped";

struct Page {
  std::atomic<int> prepared{0};
  std::atomic<int> go{0};
  std::atomic<int> moved{
      0};  // it has learned something after it went on: it is in, was refused, or is through
  Oracle oracle;
};

// Somebody who dies in A4 of an acquire: it may have got the rwlock, or not.
void die_trying(const char* segment, bool got_it) {
  const pid_t pid = harness::start([=] {
    Member self(segment);
    const Ref slot = self.open(kName);
    TestPlatform::arm(got_it ? 3 : 2, [] { kill(getpid(), SIGKILL); });  // A2, A4, A5
    self.acquire(slot, kS, Turn::kFront);
    // The try may have failed, and with it there is no A5.
    kill(getpid(), SIGKILL);
  });
  CHECK(harness::killed(harness::join(pid)));
}

void stop() { kill(getpid(), SIGSTOP); }

// False: the process got through without having reached the step.
bool perform(Mode mode, bool stop_in_release, bool beside_reader, uint64_t step) {
  harness::context_step = static_cast<int64_t>(step);
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open(kName);
  Member reader(segment.name());
  const Ref reading = reader.open(kName);
  if (beside_reader) {
    CHECK_EQ(reader.acquire(reading, kS), Try::kAcquired);
    page->oracle.enter(kS);
  }
  const pid_t straggler = harness::start([&] {
    Member self(segment.name());
    const Ref slot = self.open(kName);
    page->prepared.store(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    TestPlatform::loads_count = true;
    if (!stop_in_release) TestPlatform::arm(step, stop);
    while (self.acquire(slot, mode, Turn::kFront) != Try::kAcquired) {
      TestPlatform::disarm();
      page->moved.store(1);
      usleep(50);
    }
    TestPlatform::disarm();
    page->oracle.enter(mode);
    page->moved.store(1);
    page->oracle.leave(mode);
    if (stop_in_release) TestPlatform::arm(step, stop);
    CHECK_EQ(self.arena->release(slot), Status::kOk);
    TestPlatform::disarm();
    page->moved.store(2);
    self.unbind(slot);
  });
  CHECK(harness::eventually([&] { return page->prepared.load() == 1; }));
  page->go.store(1);
  int status = 0;
  CHECK(waitpid(straggler, &status, WUNTRACED) == straggler);
  const bool was_stopped = WIFSTOPPED(status);
  if (!was_stopped) {
    CHECK_EQ(status, 0);
  } else {
    page->moved.store(0);
    const auto snapshot = [&] {
      std::vector<proclock::HolderInfo> infos;
      CHECK_EQ(boss.arena->snapshot(ref.lock_index, &infos), Status::kOk);
      return infos;
    };
    const Auditor auditor(boss.memory.base());
    uint32_t slot = 0;
    for (uint32_t s = Auditor::get(ref.lock->slots_head); s != 0;
         s = Auditor::get(auditor.slot(s).lock_next)) {
      if (s != ref.slot_index && s != reading.slot_index) slot = s;
    }
    // An odd number: after an even one the lock may be back on the storage that the straggler knew.
    for (int round = 0; round < 3; round++) {
      die_trying(segment.name(), round % 2 == 0);
      boss.look_at_all();
      const uint64_t word = Auditor::get(auditor.slot(slot).word);
      const uint32_t current = proclock::storage_of(ref.lock->gate.load(std::memory_order_relaxed));
      // INV-3: what it refers to without holding it has been retired, and is not made new.
      if (proclock::refers(word) && !proclock::is_held(word)) CHECK(proclock::storage_of(word) != current);
      if (proclock::is_held(word)) CHECK_EQ(proclock::storage_of(word), current);
    }
    const bool in = proclock::is_held(Auditor::get(auditor.slot(slot).word));
    CHECK_EQ(snapshot().size(), static_cast<size_t>(in) + (beside_reader ? 1 : 0));
    if (beside_reader) {
      CHECK_EQ(boss.acquire(ref, kX), Try::kBusy);
      page->oracle.leave(kS);
      reader.release(reading);
    }
    if (in) {
      CHECK_EQ(boss.acquire(ref, kX), Try::kBusy);
    } else {
      CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
      page->oracle.enter(kX);
    }
    CHECK_EQ(kill(straggler, SIGCONT), 0);
    CHECK(harness::eventually([&] { return page->moved.load() != 0; }));
    if (!in) {
      page->oracle.leave(kX);
      boss.release(ref);
    }
    JOIN_OK(straggler);
  }
  if (!was_stopped && beside_reader) reader.release(reading);
  boss.look_at_all();
  CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
  boss.release(ref);
  CHECK_EQ(page->oracle.violations.load(), 0u);
  reader.unbind(reading);
  boss.unbind(ref);
  const Census census = audit(boss);
  CHECK_EQ(census.slots, 0u);
  CHECK_EQ(census.storages, 1u);
  munmap(page, sizeof *page);
  return was_stopped;
}

TEST(
    "a process that is stopped at any step, while its lock is recovered and taken, is never in beside "
    "another",
    120) {
  uint64_t steps = 0;
  for (const bool in_release : {false, true}) {
    for (const Mode mode : {kS, kX}) {
      for (const bool beside_reader : {false, true}) {
        if (mode == kX && beside_reader) continue;
        harness::context = mode == kX ? (in_release ? "release exclusive" : "acquire exclusive")
                                      : (in_release ? "release shared" : "acquire shared");
        uint64_t step = 1;
        while (perform(mode, in_release, beside_reader, step)) step++;
        steps += step - 1;
      }
    }
  }
  printf("  %llu (operation, step) pairs\n", static_cast<unsigned long long>(steps));
}

}  // namespace
