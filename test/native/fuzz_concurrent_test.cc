// Somebody writes random values over every byte of a segment that is in use, while threads of two processes work in it through
// the client, with the runtime's own threads behind them. Nobody is hurt: no signal, nothing that goes on for ever, and each
// result is a status.
//
// A round is a fresh segment, which the writer spares only until everybody has come in. How fast it writes, how often it sets the latch free (a fault
// that is found ends a namespace, and what comes behind it is to be met as well) and what the workers prefer is diced anew.
//
//   PROCLOCK_FUZZ_ROUNDS=n   so many instead of the usual number
//   PROCLOCK_FUZZ_ROUND=n    this one alone. It does what it did, though not at the same moments
#include <fcntl.h>
#include <setjmp.h>
#include <sys/resource.h>

#include <thread>

#include "dice.h"
#include "loop.h"

namespace {

using proclock::Finished;
using proclock::System;
using Table = proclock::Layout<proclock::System>;
using Header = proclock::Header<System>;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kRounds = 300;
#else
constexpr uint64_t kRounds = 1000;
#endif
constexpr unsigned kRoundS = 60;
constexpr int kThreads = 2;  // in each of two processes
constexpr int kOperations = 60;
constexpr size_t kAtOnce = 4;  // rounds; they sleep now and then

struct Page {
  std::atomic<int> inside{0};
  std::atomic<int> done{0};
};

// ---- who writes

class Writer {
 public:
  Writer(const harness::Segment& segment, uint64_t seed) : dice_(seed) {
    const int fd = ::open(segment.path().c_str(), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    void* base = mmap(nullptr, Table::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    base_ = static_cast<char*>(base);
    pause_us_ = dice_.one_in(3) ? 0 : dice_.below(300);
    burst_ = 1 + dice_.below(dice_.one_in(4) ? 200 : 4);
    mends_ = dice_.one_in(2);
    favourite_ = dice_.below(8);
  }
  // In a process of its own that has no token: when nobody else is alive in it, the segment is made anew under our feet.
  void run(const Page& page, int workers) {
    signal(SIGBUS, [](int) { siglongjmp(missed_, 1); });
    while (page.done.load() < workers) {
      if (sigsetjmp(missed_, 1) == 0) {
        for (uint32_t n = 0; n < burst_; n++) write();
        if (mends_ && dice_.one_in(4)) set_latch(dice_.one_in(2) ? 0 : proclock::kLatchDirty);
      }
      if (pause_us_ != 0) usleep(pause_us_);
    }
    // Whoever is told to be inside does not stay there.
    if (sigsetjmp(missed_, 1) == 0) set_latch(proclock::kLatchCorrupt);
  }

 private:
  template <class T>
  void put(size_t offset, T what) {
    reinterpret_cast<std::atomic<T>*>(base_ + offset)->store(what, std::memory_order_relaxed);
  }
  void set_latch(uint64_t word) { put(offsetof(Header, latch), word); }
  // Some bytes of a table up to what is really in use, never mind what the header says by now.
  size_t in(size_t offset, uint32_t entries, size_t entry) {
    return offset + dice_.below(entries * static_cast<uint32_t>(entry));
  }
  size_t place() {
    switch (dice_.one_in(2) ? favourite_ : dice_.below(8)) {
      case 0:
        return dice_.below(sizeof(Header));
      case 1:
        return in(Table::kProcesses, 4, sizeof(proclock::Process<System>));
      case 2:
        return in(Table::kLocks, 8, sizeof(proclock::Lock<System>));
      case 3:
        return in(Table::kStorages, 16, sizeof(proclock::Storage<System>));
      case 4:
        return in(Table::kExtents, 16, sizeof(proclock::Extent<System>));
      case 5:
        return in(Table::kBuckets, proclock::kBucketsMin, 4);
      default:
        return in(Table::kSlots, 32, sizeof(proclock::Slot<System>));
    }
  }
  uint32_t value() {
    switch (dice_.below(8)) {
      case 0:
        return 0;
      case 1:
        return static_cast<uint32_t>(dice_.bits());
      case 2:
        return ~dice_.below(3);
      case 3:  // owner, serial, mode and phase of a slot
        return dice_.below(8) << proclock::kSerialShift | dice_.below(5) << proclock::kOwnerShift |
               dice_.below(16);
      case 4:  // flags of a slot
        return dice_.below(1024) | dice_.below(64) << 16;
      default:  // an index that is in use, phases and modes, flags of a gate
        return dice_.below(20);
    }
  }
  void write() {
    const size_t offset = place();
    if (dice_.one_in(2)) {  // one byte, wherever it lies
      put(offset, static_cast<uint8_t>(value()));
    } else {
      put(offset / 4 * 4, value());
    }
  }

  static inline sigjmp_buf missed_;
  Dice dice_;
  char* base_;
  uint32_t pause_us_, burst_, favourite_;
  bool mends_;
};

// ---- who works

void check(Status status) { CHECK(status <= Status::kOk && status >= Status::kUpgrading); }

class Worker {
 public:
  Worker(const harness::Segment& segment, uint32_t thread, uint64_t seed)
      : segment_(segment), dice_(seed), loop_(thread) {
    open();
  }
  void work() {
    for (int n = 0; n < kOperations; n++) act();
    // The rest is left to the end of the thread.
  }

 private:
  using Client = proclock::Client<System>;
  Client& client() { return loop_.client; }
  uint32_t any_lock() {
    return locks_.empty() ? 0 : locks_[dice_.below(static_cast<uint32_t>(locks_.size()))];
  }
  uint32_t any_key() { return any_lock() << kKeyBits | dice_.below(4); }
  uint32_t any_hold() {
    return holds_.empty() ? 0 : holds_[dice_.below(static_cast<uint32_t>(holds_.size()))];
  }
  void add(int32_t hold) {
    if (hold < 0) return check(static_cast<Status>(hold));
    holds_.push_back(static_cast<uint32_t>(hold & ~Client::kAttention));
    if (holds_.size() > 64) holds_.erase(holds_.begin(), holds_.begin() + 32);
  }
  void open() {
    std::string name(1, static_cast<char>('a' + dice_.below(4)));
    if (dice_.one_in(3)) name += std::string(100 + 60 * dice_.below(3), 'n');
    uint32_t id = 0;
    proclock::OpenFailure failure;
    const Status status = client().open_lock(segment_.name(), -1, name_of(name), &id, &failure);
    check(status);
    if (ok(status)) locks_.push_back(id);
  }
  void wait_a_little() {
    const int32_t hold = client().enqueue(any_key(), dice_.one_in(2) ? Client::kThrows : 0);
    add(hold);
    if (hold < 0 || loop_.report.granted != 0) return;
    for (int n = 0; n < 3; n++) {
      const Status status = client().wait(static_cast<uint32_t>(hold), dice_.below(3));
      check(status);
      if (status != Status::kAgain) return;
    }
    check(client().withdraw(static_cast<uint32_t>(hold)));
  }
  void react() {
    constexpr int kReadyMax = 64;
    if (loop_.report.owed != 0) client().settle_owed();
    Status tried;
    for (int n = 0; n < kReadyMax && client().next_ready(&tried) >= 0; n++) check(tried);
    if (dice_.one_in(4)) usleep(200);
  }
  void look() {
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    std::vector<proclock::MarkedLock> marks;
    switch (dice_.below(8)) {
      case 0:
        return check(client().query(any_lock(), false, &infos));
      case 1:
        check(client().marks(any_lock(), &marks));
        return check(client().query_all(any_lock(), &infos, &names));
      case 2:
        return check(client().check(any_lock()));
      case 3:
        return void(client().held_by_thread(any_lock()));
      case 4:
        return void(client().serve());
      case 5:
      case 6:
        return look_for_cycles();
      default:
        return check(client().look(any_lock()));
    }
  }
  void look_for_cycles() {
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    std::vector<proclock::LockName> in_cycles;
    const uint32_t wait = any_hold();
    client().look_for_cycle(wait, {{context_, any_hold()}, {client().new_context(), any_hold()}});
    client().say_contexts(any_hold(), {{context_, any_hold()}});
    client().waits_in_cycles();
    check(client().cycle_of(wait, &infos, &names));
    check(client().locks_in_cycles(any_lock(), &in_cycles));
    client().leave_context(any_hold());
  }
  void hold() {
    proclock::AbandonedInfo info;
    switch (dice_.below(12)) {
      case 0:
        return check(client().downgrade(any_hold()));
      case 1:
        check(client().abandoned(any_hold(), &info));
        return check(client().finish(any_hold(), dice_.one_in(2) ? Finished::kRepair : Finished::kFlight));
      case 2:
        return check(client().listen(any_hold()));
      case 3:
        return check(client().check_hold(any_hold()));
      case 4:
        return check(client().withdraw(any_hold()));
      case 5:
        return check(client().react(any_hold()));
      case 6:
        return check(client().try_upgrade(any_hold()));
      case 7:
        return check(client().upgrade(any_hold()));
      default:
        return check(client().release(any_hold()));
    }
  }
  void act() {
    switch (dice_.below(16)) {
      case 0:
        return open();
      case 1:
        if (dice_.one_in(4)) client().close_lock(any_lock());
        return;
      case 2:
        return add(client().steal(any_key()));
      case 3:
      case 4:
        return wait_a_little();
      case 5:
      case 6:
        return add(client().enqueue(any_key(), Client::kAsync | (dice_.one_in(2) ? Client::kThrows : 0)));
      case 7:
      case 8:
        return react();
      case 9:
        return look();
      case 10:
      case 11:
        return add(client().try_acquire(any_key()));
      default:
        return hold();
    }
  }

  const harness::Segment& segment_;
  Dice dice_;
  Loop loop_;
  std::vector<uint32_t> locks_;
  std::vector<uint32_t> holds_;
  const uint32_t context_ = client().new_context();
};

void work_in_threads(const harness::Segment& segment, Page& page, uint64_t seed) {
  std::vector<std::thread> threads;
  for (uint32_t n = 0; n < kThreads; n++) {
    threads.emplace_back([&, n] {
      {
        Worker worker(segment, n, seed * 16 + n);
        page.inside.fetch_add(1);
        worker.work();
      }
      page.done.fetch_add(1);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void perform(uint64_t seed) {
  alarm(kRoundS);
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  {
    Member(segment.name());
  }  // makes it
  const pid_t other = harness::start([&] {
    alarm(kRoundS);
    work_in_threads(segment, *page, seed * 2);
    _exit(0);
  });
  const pid_t writer = harness::start([&] {
    alarm(kRoundS);
    Writer self(segment, seed);
    while (page->inside.load() < 2 * kThreads) usleep(50);
    self.run(*page, 2 * kThreads);
  });
  work_in_threads(segment, *page, seed * 2 + 1);
  JOIN_OK(other);
  JOIN_OK(writer);
  shm_unlink(segment.name());
}

TEST("whatever is written over a segment while others work in it, nobody crashes, and nobody works for ever",
     36000) {
  const uint64_t only = harness::number_from("PROCLOCK_FUZZ_ROUND", 0);
  const uint64_t rounds = only != 0 ? only : harness::number_from("PROCLOCK_FUZZ_ROUNDS", kRounds);
  int failed = 0;
  uint64_t slowest_ms = 0;
  struct Running {
    uint64_t round, begun_ms;
  };
  std::unordered_map<pid_t, Running> running;
  const auto reap = [&] {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    const Running ended = running.at(pid);
    running.erase(pid);
    slowest_ms = std::max(slowest_ms, harness::now_ms() - ended.begun_ms);
    if (status == 0) return;
    failed++;
    fprintf(stderr, "  PROCLOCK_FUZZ_ROUND=%llu: %s %d\n", static_cast<unsigned long long>(ended.round),
            WIFSIGNALED(status) ? "signal" : "exit code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    shm_unlink((harness::Segment::prefix(pid) + "0").c_str());
  };
  for (uint64_t round = only != 0 ? only : 1; round <= rounds; round++) {
    if (running.size() == kAtOnce) reap();
    const uint64_t begun_ms = harness::now_ms();
    running[harness::start([round] {
      perform(round);
      _exit(0);
    })] = {round, begun_ms};
  }
  while (!running.empty()) reap();
  rusage usage = {};
  getrusage(RUSAGE_CHILDREN, &usage);
  printf("  %llu rounds, %ld s of CPU, the longest took %llu ms\n", static_cast<unsigned long long>(rounds),
         usage.ru_utime.tv_sec + usage.ru_stime.tv_sec, static_cast<unsigned long long>(slowest_ms));
  CHECK_EQ(failed, 0);
}

}  // namespace
