// Many processes, and processes that come and go by fork() in every way that fork() allows.
#include <thread>

#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

struct Page {
  std::atomic<uint32_t> attached{0};
  std::atomic<uint32_t> done{0};
  std::atomic<int> go{0};
  Oracle oracle;
};

// Blocks without using the processor until the parent closes its end.
struct Starting {
  Starting() { CHECK_EQ(pipe(ends), 0); }
  void wait() {
    char byte;
    close(ends[1]);
    while (read(ends[0], &byte, 1) < 0) {
    }
  }
  void fire() { close(ends[1]); }
  int ends[2];
};

TEST("1,000 processes are attached at once, and each of them gets the lock", 180) {
  constexpr uint32_t kProcesses = 1000;
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Starting starting;
  const uint64_t begun = harness::now_ms();
  std::vector<pid_t> children;
  for (uint32_t n = 0; n < kProcesses; n++) {
    children.push_back(harness::start([&, n] {
      const Mode mode = n % 4 == 0 ? kX : kS;
      Member self(segment.name());
      const Ref ref = self.open("scale");
      page->attached.fetch_add(1);
      starting.wait();
      CHECK_EQ(acquire_waiting(self, ref, mode, 0, 120000), Status::kOk);
      page->oracle.enter(mode);
      page->oracle.leave(mode);
      self.release(ref);
      page->done.fetch_add(1);
      self.unbind(ref);
    }));
  }
  CHECK(harness::eventually([&] { return page->attached.load() == kProcesses; }));
  Member boss(segment.name());
  CHECK_EQ(audit(boss).processes, kProcesses + 1);
  const uint64_t fired = harness::now_ms();
  starting.fire();
  for (const pid_t child : children) JOIN_OK(child);
  CHECK_EQ(page->done.load(), kProcesses);
  CHECK_EQ(page->oracle.violations.load(), 0u);
  printf("  attached in %llu ms, served in %llu ms\n", static_cast<unsigned long long>(fired - begun),
         static_cast<unsigned long long>(harness::now_ms() - fired));
  boss.look_at_all();
  const Census census = audit(boss);
  CHECK_EQ(census.processes, 1u);
  CHECK_EQ(census.slots, 0u);
}

TEST("1,000 attached processes that are killed at once are recovered, holders and waiters alike", 180) {
  constexpr uint32_t kProcesses = 1000;
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("scale");
  std::vector<pid_t> children;
  for (uint32_t n = 0; n < kProcesses; n++) {
    children.push_back(harness::start([&, n] {
      Member self(segment.name());
      const Ref mine = self.open("scale");
      const Status status = self.queue(mine, n < kProcesses / 2 ? kS : kX, proclock::kSlotAsync);
      CHECK(status == Status::kOk || status == Status::kAgain);
      page->attached.fetch_add(1);
      for (;;) pause();
    }));
  }
  CHECK(harness::eventually([&] { return page->attached.load() == kProcesses; }));
  for (const pid_t child : children) CHECK_EQ(kill(child, SIGKILL), 0);
  for (const pid_t child : children) CHECK(harness::killed(harness::join(child)));
  const uint64_t begun = harness::now_ms();
  boss.look_at_all();
  printf("  recovered in %llu ms\n", static_cast<unsigned long long>(harness::now_ms() - begun));
  CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
  const Census census = audit(boss);
  CHECK_EQ(census.processes, 1u);
  CHECK_EQ(census.slots, 1u);
}

TEST("3,000 short-lived children take the lock and release it, leave without a word, or die holding it",
     180) {
  constexpr int kChildren = 3000;
  constexpr int kAtOnce = 8;
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("scale");
  std::vector<pid_t> running;
  const auto reap = [&] {
    const int status = harness::join(running.front());
    CHECK(harness::killed(status) || harness::ended_well(status));
    running.erase(running.begin());
  };
  for (int n = 0; n < kChildren; n++) {
    running.push_back(harness::start([&, n] {
      const Mode mode = n % 3 == 0 ? kX : kS;
      Member self(segment.name());
      const Ref mine = self.open("scale");
      CHECK_EQ(acquire_waiting(self, mine, mode, 0, 120000, 5), Status::kOk);
      page->oracle.enter(mode);
      page->done.fetch_add(1);
      page->oracle.leave(mode);
      if (n % 5 == 0) kill(getpid(), SIGKILL);
      if (n % 5 == 1) _exit(0);
      self.release(mine);
      if (n % 5 == 2) _exit(0);
      self.unbind(mine);
    }));
    if (running.size() >= kAtOnce) reap();
  }
  while (!running.empty()) reap();
  CHECK_EQ(page->done.load(), static_cast<uint32_t>(kChildren));
  CHECK_EQ(page->oracle.violations.load(), 0u);
  boss.look_at_all();
  CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
  boss.release(ref);
  const Census census = audit(boss);
  CHECK_EQ(census.processes, 1u);
  CHECK_EQ(census.slots, 1u);
  CHECK_EQ(census.storages - census.retired, 1u);
  CHECK(census.retired <= 1);
}

// ---- raw fork() of a process that has the whole runtime

using Client = proclock::Client<proclock::System>;
using Report = proclock::Report;

constexpr uint32_t kKeyShift = Client::kKeyBits;

auto& runtime() { return proclock::Runtime<proclock::System>::get(); }

uint32_t open_or_fail(Client& client, const char* segment, const std::string& name) {
  uint32_t id = 0;
  proclock::OpenFailure failure;
  CHECK_EQ(client.open_lock(segment, -1, name_of(name), &id, &failure), Status::kOk);
  return id;
}

TEST("the child of a raw fork() holds nothing of its parent's, and does not keep it alive after its death") {
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("forked");
  // The middle one holds, forks, and dies; its child lives on, with a copy of everything.
  const pid_t middle = harness::start([&] {
    Report report = {};
    Client* client = new Client(runtime(), 0, &report, [](void*) {}, nullptr);
    const uint32_t id = open_or_fail(*client, segment.name(), "forked");
    const int32_t hold = client->try_acquire(id << kKeyShift | Client::kKeyExclusive);
    CHECK(hold >= 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      // Not with the death of its parent: that is the point.
      CHECK_EQ(client->release(static_cast<uint32_t>(hold)), Status::kClosed);
      CHECK_EQ(client->try_acquire(id << kKeyShift), static_cast<int32_t>(Status::kClosed));
      Report own = {};
      Client* fresh = new Client(runtime(), 0, &own, [](void*) {}, nullptr);
      const uint32_t again = open_or_fail(*fresh, segment.name(), "forked");
      CHECK_EQ(fresh->try_acquire(again << kKeyShift), static_cast<int32_t>(Status::kBusy));
      page->attached.store(static_cast<uint32_t>(getpid()));
      CHECK(harness::eventually([&] { return page->go.load() == 1; }));
      const int32_t got = fresh->try_acquire(again << kKeyShift);
      CHECK(got >= 0);
      CHECK_EQ(own.abandoned, 1);
      CHECK_EQ(fresh->release(static_cast<uint32_t>(got)), Status::kOk);
      page->done.store(1);
      _exit(0);
    }
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return page->attached.load() != 0; }));
  CHECK_EQ(boss.acquire(ref, kX), Try::kBusy);
  KILL_AND_JOIN(middle);
  boss.look_at_all();
  CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
  CHECK_EQ(ref.lock->abandoned.load(std::memory_order_relaxed), 1u);
  boss.release(ref);
  page->go.store(1);
  const bool done = harness::eventually([&] { return page->done.load() == 1; });
  if (!done) kill(static_cast<pid_t>(page->attached.load()), SIGKILL);
  CHECK(done);
}

TEST("the child of a raw fork() is counted once, in the reports of the thread that forked") {
  Report reports[3] = {};
  const auto ignore = [](void*) {};
  Client first(runtime(), 1, &reports[0], ignore, nullptr);
  Client second(runtime(), 1, &reports[1], ignore, nullptr);
  {
    Client gone(runtime(), 1, &reports[2], ignore, nullptr);
  }
  Page* page = harness::shared<Page>();
  std::thread other([&] {
    Report report = {};
    Client client(runtime(), 2, &report, ignore, nullptr);
    page->attached.store(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    CHECK_EQ(report.forks, 0);
  });
  CHECK(harness::eventually([&] { return page->attached.load() == 1; }));
  JOIN_OK(harness::start([&] {
    CHECK_EQ(reports[0].forks, 1);
    CHECK_EQ(reports[1].forks, 1);
    CHECK_EQ(reports[2].forks, 0);
    JOIN_OK(harness::start([&] { CHECK_EQ(reports[0].forks, 2); }));
    CHECK_EQ(reports[0].forks, 1);
  }));
  CHECK_EQ(reports[0].forks, 0);
  page->go.store(1);
  other.join();
}

TEST("a raw fork() works where JavaScript's memory stays behind") {
  const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  CHECK_EQ(madvise(memory, size, MADV_DONTFORK), 0);
  auto* report = new (memory) Report();
  Report beside = {};
  Client left(runtime(), 0, report, [](void*) {}, nullptr);
  Client client(runtime(), 0, &beside, [](void*) {}, nullptr);
  JOIN_OK(harness::start([&] { CHECK_EQ(beside.forks, 1); }));
}

}  // namespace
