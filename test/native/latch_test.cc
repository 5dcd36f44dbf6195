// The latch (native/core/latch.h): who gets in, who is held up by whom, what the death of an owner or of a contender costs.
// Its steps L1 to L10 are taken by real processes that are stopped, or killed, before each of them, loads included.
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include "world.h"

namespace {

constexpr uint64_t kHurryNs = 1000000;

struct Page {
  std::atomic<uint32_t> progress{0};  // of somebody who enters and leaves all the time
  std::atomic<int> ready{0};
  std::atomic<int> go{0};
  std::atomic<bool> end{false};
  std::atomic<bool> inside{false};    // where the one that acts was stopped, or killed
  std::atomic<uint32_t> rebuilds{0};  // and what had been rebuilt by then
};
Page* the_page;

void note_where() {
  the_page->inside.store(TestPlatform::is_inside_latch());
  the_page->rebuilds.store(TestPlatform::last_attached == nullptr ? 0
                                                                  : TestPlatform::last_attached->rebuilds());
}
void stop_here() {
  note_where();
  kill(getpid(), SIGSTOP);
}
void die_here() {
  note_where();
  kill(getpid(), SIGKILL);
}
void die_inside() {
  CHECK(TestPlatform::is_inside_latch());
  kill(getpid(), SIGKILL);
}

// Entries into the latch that do something.
void enter_and_leave(Member& self, const Ref& ref) { self.unbind(self.bind(ref)); }

std::atomic<uint64_t>& latch_of(Member& member) { return *member.arena->header().latch.plain(); }
uint32_t rebuilds_of(Member& member) {
  return member.arena->header().rebuilds.load(std::memory_order_relaxed);
}

// Somebody dies inside, after so many steps.
void add_dead_owner(const char* segment) {
  const pid_t pid = harness::start([=] {
    Member self(segment);
    const Ref ref = self.open("latch");
    TestPlatform::arm(4, die_inside);
    enter_and_leave(self, ref);
    CHECK(!"reached");
  });
  CHECK(harness::killed(harness::join(pid)));
}

enum class Owner { kLeavesSoon, kDead };

// A contender is stopped, or killed, before its step. Others go on meanwhile, unless it was stopped inside. False: it got
// through without having reached the step.
bool perform(Owner owner, void (*act)(), uint64_t step) {
  harness::context_step = static_cast<int64_t>(step);
  harness::Segment segment;
  Page* page = the_page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("latch");
  const pid_t other = harness::start([&] {
    Member self(segment.name());
    const Ref slot = self.open("latch");
    page->ready.fetch_add(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    while (!page->end.load()) {
      enter_and_leave(self, slot);
      page->progress.fetch_add(1);
      usleep(20);
    }
    self.unbind(slot);
  });
  const pid_t contender = harness::start([&] {
    Member self(segment.name());
    const Ref slot = self.open("latch");
    page->ready.fetch_add(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    TestPlatform::loads_count = act == stop_here;
    TestPlatform::arm(step, act);
    enter_and_leave(self, slot);
    TestPlatform::disarm();
    self.unbind(slot);
  });
  CHECK(harness::eventually([&] { return page->ready.load() == 2; }));
  if (owner == Owner::kDead) add_dead_owner(segment.name());
  int status = 0;
  pid_t seen = 0;
  const auto start_them = [&] {
    page->go.store(1);
    for (int waited = 0; waited < 20 && seen == 0; waited++) {
      usleep(1000);
      seen = waitpid(contender, &status, WNOHANG | WUNTRACED);
    }
  };
  if (owner == Owner::kLeavesSoon) {
    Member::Arena::Latched latched(*boss.arena);
    CHECK_EQ(latched.status(), Status::kOk);
    start_them();
  } else {
    start_them();
  }
  while (seen == 0) seen = waitpid(contender, &status, WUNTRACED);
  const bool stopped = WIFSTOPPED(status);
  const bool died = harness::killed(status);
  CHECK(stopped || died || harness::ended_well(status));
  const bool inside = page->inside.load();
  if (stopped && inside) {
    TestPlatform::latch_patience_ns = kHurryNs;
    Ref none;
    CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
    TestPlatform::latch_patience_ns = 20000000000;
  } else {
    const uint32_t before = page->progress.load();
    CHECK(harness::eventually([&] { return page->progress.load() > before + 2; }));
    enter_and_leave(boss, ref);
  }
  if (stopped) {
    CHECK_EQ(kill(contender, SIGCONT), 0);
    JOIN_OK(contender);
  }
  page->end.store(true);
  JOIN_OK(other);
  boss.look_at_all();
  CHECK_EQ(rebuilds_of(boss), died && inside ? page->rebuilds.load() + 1 : owner == Owner::kDead);
  boss.unbind(ref);
  const Census census = audit(boss);
  CHECK_EQ(census.slots, 0u);
  CHECK_EQ(census.processes, 1u);
  munmap(page, sizeof *page);
  return stopped || died;
}

void perform_all(const char* what, Owner owner, void (*act)()) {
  harness::context = what;
  uint64_t step = 1;
  while (perform(owner, act, step)) step++;
  printf("  %llu steps: %s\n", static_cast<unsigned long long>(step - 1), what);
  harness::context = "";
}

TEST("a contender that is stopped at any step, and is not inside, holds up nobody", 240) {
  perform_all("stopped beside an owner that leaves", Owner::kLeavesSoon, stop_here);
}

TEST(
    "one that is stopped at any step of taking the latch over from a dead owner, and is not inside, holds up "
    "nobody",
    240) {
  perform_all("stopped beside a dead owner", Owner::kDead, stop_here);
}

TEST("a contender that dies at any step is cleaned up after exactly if it died inside", 240) {
  perform_all("killed beside an owner that leaves", Owner::kLeavesSoon, die_here);
  perform_all("killed beside a dead owner", Owner::kDead, die_here);
}

TEST("a death at any step of attaching leaves a namespace that is rebuilt exactly if it was inside") {
  for (uint64_t step = 1;; step++) {
    harness::context_step = static_cast<int64_t>(step);
    harness::Segment segment;
    Page* page = the_page = harness::shared<Page>();
    Member boss(segment.name());
    const pid_t pid = harness::start([&] {
      TestPlatform::arm(step, die_here);
      Member self(segment.name());
      TestPlatform::disarm();
    });
    const int status = harness::join(pid);
    CHECK(harness::killed(status) || harness::ended_well(status));
    Member newcomer(segment.name());
    boss.look_at_all();
    CHECK_EQ(rebuilds_of(boss), page->inside.load() ? 1u : 0u);
    CHECK_EQ(audit(boss).processes, 2u);
    if (!harness::killed(status)) break;
  }
}

TEST(
    "a latch that names a number nobody has, or the number of the process itself, is foreign content: "
    "rebuilt") {
  harness::Segment segment;
  Member boss(segment.name());
  const Ref ref = boss.open("latch");
  uint32_t rebuilds = 0;
  for (const uint64_t number : {uint64_t{1000000}, proclock::kNumbersMax - 1, boss.memory.number()}) {
    latch_of(boss).store(proclock::latch_word(number));
    enter_and_leave(boss, ref);
    CHECK_EQ(rebuilds_of(boss), ++rebuilds);
    audit(boss);
  }
}

TEST("an owner that is stopped is not robbed, and the threads of its process wait for it as others do") {
  harness::Segment segment;
  Member boss(segment.name());
  Member other(segment.name());
  const Ref ref = boss.open("latch");
  TestPlatform::latch_patience_ns = 20 * kHurryNs;
  Ref none;
  {
    Member::Arena::Latched latched(*other.arena);
    CHECK_EQ(latched.status(), Status::kOk);
    for (int n = 0; n < 5; n++) CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
    CHECK(other.memory.is_inside());
  }
  enter_and_leave(boss, ref);
  CHECK_EQ(rebuilds_of(boss), 0u);
}

TEST(
    "the owner of the latch in another PID namespace, with our own pid, is not robbed, and is followed when "
    "it dies") {
  LINUX_ONLY("PID namespaces are of Linux");
  harness::Segment segment;
  Page* page = the_page = harness::shared<Page>();
  // Both are pid 1 where they are.
  const auto in_namespace = [](auto function) {
    return harness::start([=] {
      if (unshare(CLONE_NEWPID) != 0) harness::end(77);
      const pid_t first = fork();
      CHECK(first >= 0);
      if (first != 0) return JOIN_OK(first);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      CHECK_EQ(getpid(), 1);
      function();
      harness::end(0);
    });
  };
  const char* name = segment.name();
  Member boss(name);
  const Ref ref = boss.open("latch");
  const pid_t owner = in_namespace([=] {
    Member self(name);
    Member::Arena::Latched latched(*self.arena);
    page->ready.store(1);
    while (!page->end.load()) usleep(200);
    _exit(0);  // inside: as dead as if it had been killed
  });
  const auto refused = [&](pid_t pid) {
    int status = 0;
    return waitpid(pid, &status, WNOHANG) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 77;
  };
  bool skipped = false;
  CHECK(harness::eventually([&] { return page->ready.load() == 1 || (skipped = refused(owner)); }));
  if (skipped) {
    printf("  skipped: no PID namespace can be made\n");
    boss.unbind(ref);
    return;
  }
  const auto contend = [=](Status expected) {
    TestPlatform::latch_patience_ns = 200 * kHurryNs;
    Member self;
    CHECK_EQ(self.enter(name), expected);
  };
  JOIN_OK(in_namespace([=] { contend(Status::kStalled); }));
  TestPlatform::latch_patience_ns = 200 * kHurryNs;
  Ref none;
  CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
  page->end.store(true);
  JOIN_OK(owner);
  JOIN_OK(in_namespace([=] { contend(Status::kOk); }));
  TestPlatform::latch_patience_ns = 20000000000;
  boss.look_at_all();
  CHECK_EQ(rebuilds_of(boss), 1u);
  boss.unbind(ref);
  CHECK_EQ(audit(boss).processes, 1u);
}

TEST("one that was taken for dead touches nothing more when it leaves, and has lost the namespace") {
  harness::Segment segment;
  Member boss(segment.name());
  Member slow(segment.name());
  const uint64_t stranger = proclock::latch_word(boss.memory.number());
  {
    Member::Arena::Latched latched(*slow.arena);
    latch_of(boss).store(stranger);
  }
  CHECK_EQ(latch_of(boss).load(), stranger);
  CHECK(slow.arena->is_corrupt());
  CHECK(!boss.arena->is_corrupt());
  latch_of(boss).store(0);
  slow.vanish();
}

TEST(
    "as long as a latch is stalled, each call of a process costs its patience once in a while, not each "
    "time") {
  harness::Segment segment;
  Member boss(segment.name());
  Member owner(segment.name());
  const Ref ref = boss.open("latch");
  TestPlatform::latch_patience_ns = 20 * kHurryNs;
  TestPlatform::latch_pause_ns = 10000 * kHurryNs;
  Member::Arena::Latched latched(*owner.arena);
  Ref none;
  CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
  const uint64_t begun = harness::now_ms();
  for (int n = 0; n < 200; n++) CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
  CHECK(harness::now_ms() - begun < 200 * 20 / 2);
  // Who has a deadline of its own waits until then.
  const proclock::Patience patience(TestPlatform::monotonic_ns() + 60 * kHurryNs);
  const uint64_t patient = harness::now_ms();
  CHECK_EQ(boss.arena->bind(ref.lock_index, 0, &none), Status::kStalled);
  CHECK(harness::now_ms() - patient >= 59);
}

// ---- CORRUPT

TEST("a namespace that was found corrupt refuses everybody, newcomers too, until nobody is alive in it") {
  harness::Segment segment;
  uint64_t created = 0;
  {
    Member one(segment.name());
    Member two(segment.name());
    const Ref ref = one.open("latch");
    const Ref theirs = two.open("latch");
    created = one.arena->header().created_ns.load(std::memory_order_relaxed);
    CHECK_EQ(one.arena->condemn(), Status::kCorrupt);
    CHECK(one.arena->is_corrupt() && two.arena->is_corrupt());
    Ref none;
    for (int n = 0; n < 3; n++) {
      CHECK_EQ(one.arena->bind(ref.lock_index, 0, &none), Status::kCorrupt);
      CHECK_EQ(two.arena->open_lock(name_of("another"), 0, &none), Status::kCorrupt);
      CHECK_EQ(two.arena->look(theirs.lock_index), Status::kCorrupt);
      CHECK_EQ(two.arena->enqueue(theirs, Mode::kExclusive, 0), Status::kCorrupt);
      CHECK_EQ(one.arena->steal(ref, &one.token), Status::kCorrupt);
      proclock::ScanSeen seen;
      two.arena->tick(&seen);
      Member newcomer;
      CHECK_EQ(newcomer.enter(segment.name()), Status::kCorrupt);
    }
    one.vanish();
    Member newcomer;
    CHECK_EQ(newcomer.enter(segment.name()), Status::kCorrupt);
    two.vanish();
  }
  Member fresh(segment.name());
  CHECK(fresh.arena->header().created_ns.load(std::memory_order_relaxed) != created);
  CHECK_EQ(fresh.acquire(fresh.open("latch"), Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(audit(fresh).processes, 1u);
}

TEST("all that sleep for the latch leave as soon as its owner finds the namespace corrupt") {
  constexpr int kSleepers = 6;
  harness::Segment segment;
  Page* page = the_page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("latch");
  std::vector<pid_t> sleepers;
  for (int n = 0; n < kSleepers; n++) {
    sleepers.push_back(harness::start([&] {
      Member self(segment.name());
      page->ready.fetch_add(1);
      CHECK(harness::eventually([&] { return page->go.load() == 1; }));
      Ref none;
      const Status status = self.arena->bind(ref.lock_index, 0, &none);
      CHECK_EQ(status, Status::kCorrupt);
      page->progress.fetch_add(1);
      self.vanish();
    }));
  }
  CHECK(harness::eventually([&] { return page->ready.load() == kSleepers; }));
  {
    Member::Arena::Latched latched(*boss.arena);
    page->go.store(1);
    usleep(100000);
    CHECK_EQ(page->progress.load(), 0u);
    proclock::LockName name;
    boss.arena->read_name(latched, 0, &name);  // there is no such entry
    CHECK_EQ(latched.status(), Status::kCorrupt);
  }
  for (const pid_t sleeper : sleepers) JOIN_OK(sleeper);
  boss.vanish();
}

TEST("a latch that says DIRTY without an owner is rebuilt by the next one that enters") {
  harness::Segment segment;
  Member boss(segment.name());
  const Ref ref = boss.open("latch");
  latch_of(boss).store(proclock::kLatchDirty);
  enter_and_leave(boss, ref);
  CHECK_EQ(rebuilds_of(boss), 1u);
  audit(boss);
}

}  // namespace
