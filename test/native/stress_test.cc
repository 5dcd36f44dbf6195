// Threads of one process at everything that a client can do, at the same time: what ThreadSanitizer looks at
// (npm run test:tsan). The data that the lock protects is plain memory, so a lock that excludes, but does not order what
// its holders do, is a race.
#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "world.h"

namespace {

using Client = proclock::Client<proclock::System>;

constexpr uint32_t kExclusive = Client::kKeyExclusive;
constexpr uint32_t kFair = Client::kKeyFair;
constexpr int kThreads = 6;
constexpr int kRounds = 400;
constexpr int kLocks = 3;

// A JavaScript thread in small: it has a client, and an event loop that sleeps until the client is told something.
class Agent {
 public:
  explicit Agent(uint32_t number)
      : client_(proclock::Runtime<proclock::System>::get(), number, &report_, notify, this) {}

  uint32_t open(const harness::Segment& segment, int lock) {
    const std::string name = "lock " + std::to_string(lock);
    uint32_t id = 0;
    proclock::OpenFailure failure;
    const Status status = Member::unstalled(
        [&] { return client_.open_lock(segment.name(), -1, name_of(name), &id, &failure); });
    CHECK_EQ(status, Status::kOk);
    return id << Client::kKeyBits;
  }

  // Patiently, or for so many turns of the loop; -1: given up.
  int32_t acquire(uint32_t key, bool async, int turns_max) {
    int32_t hold = client_.try_acquire(key);
    if (hold >= 0) return hold;
    do {
      hold = client_.enqueue(key, async);
    } while (hold == static_cast<int32_t>(Status::kStalled));
    CHECK(hold >= 0);
    if (report_.granted != 0) return hold;
    const uint32_t index = static_cast<uint32_t>(hold);
    for (int turn = 0; turn < turns_max; turn++) {
      if (async ? took(index) : client_.wait(index, 2) == Status::kOk) return hold;
    }
    CHECK_EQ(client_.withdraw(index), Status::kOk);
    settle();
    return -1;
  }
  void settle() {
    if (report_.owed != 0) client_.settle_owed();
  }
  Client& client() { return client_; }

 private:
  static void notify(void* self) {
    auto* agent = static_cast<Agent*>(self);
    std::lock_guard<std::mutex> hold(agent->mutex_);
    agent->told_ = true;
    agent->condition_.notify_one();
  }
  bool took(uint32_t wanted) {
    if (report_.ready == 0) {
      std::unique_lock<std::mutex> hold(mutex_);
      condition_.wait_for(hold, std::chrono::milliseconds(20), [this] { return told_; });
      told_ = false;
    }
    settle();
    bool got = false;
    Status tried;
    for (int32_t ready; (ready = client_.next_ready(&tried)) >= 0;)
      got = got || (static_cast<uint32_t>(ready) == wanted && ok(tried));
    return got;
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  bool told_ = false;
  proclock::Report report_ = {};
  Client client_;
};

// What one of the locks protects.
struct Ledger {
  uint64_t entries = 0;
  uint64_t sum = 0;
};

struct Stage {
  harness::Segment segments[2];
  Ledger ledgers[2][kLocks];
  std::atomic<uint32_t> written{0};
};

void check(const Ledger& ledger) { CHECK_EQ(ledger.sum, ledger.entries * 3); }

void work(Stage& stage, uint32_t number) {
  Agent agent(number);
  uint32_t written = 0;
  for (uint32_t round = 0; round < kRounds; round++) {
    const uint32_t dice = (round * 7 + number * 13) % 60;
    const uint32_t space = dice % 2;
    const int lock = static_cast<int>(dice % kLocks);
    Ledger& ledger = stage.ledgers[space][lock];
    const uint32_t id = agent.open(stage.segments[space], lock);
    const bool exclusive = dice % 5 < 2;
    const uint32_t key = id | (exclusive ? kExclusive : 0) | (dice % 11 == 0 ? kFair : 0);
    const int32_t got = agent.acquire(key, dice % 4 != 0, dice % 7 == 0 ? 1 : 100000);
    if (got >= 0) {
      const uint32_t hold = static_cast<uint32_t>(got);
      if (exclusive) {
        ledger.entries++;
        ledger.sum += 3;
        written++;
      }
      check(ledger);
      if (exclusive && dice % 3 == 0) {
        const Status status = agent.client().downgrade(hold);
        CHECK(ok(status) || status == Status::kStalled);
        check(ledger);
      }
      std::vector<proclock::HolderInfo> infos;
      if (dice % 13 == 0) agent.client().query(id >> Client::kKeyBits, false, &infos);
      if (dice % 17 == 0) agent.client().check(id >> Client::kKeyBits);
      CHECK_EQ(agent.client().release(hold), Status::kOk);
      agent.settle();
    }
    agent.client().close_lock(id >> Client::kKeyBits);
  }
  stage.written.fetch_add(written);
}

TEST("threads that do everything at once on the locks of two namespaces are in order, and none is lost",
     240) {
  Stage stage;
  std::vector<std::thread> threads;
  for (uint32_t n = 1; n <= kThreads; n++) threads.emplace_back(work, std::ref(stage), n);
  for (std::thread& thread : threads) thread.join();
  uint64_t entries = 0;
  for (const auto& ledgers : stage.ledgers) {
    for (const Ledger& ledger : ledgers) entries += ledger.entries;
  }
  CHECK_EQ(entries, stage.written.load());
}

TEST("threads that steal from each other learn of it, once each, and the last thief holds", 240) {
  harness::Segment segment;
  std::atomic<uint32_t> stolen{0};
  std::atomic<uint32_t> robbed{0};
  const auto steal = [&](uint32_t number) {
    Agent agent(number);
    const uint32_t key = agent.open(segment, 0) | kExclusive;
    for (int round = 0; round < kRounds; round++) {
      int32_t hold = agent.client().steal(key);
      while (hold == static_cast<int32_t>(Status::kStalled)) hold = agent.client().steal(key);
      CHECK(hold >= 0);
      stolen.fetch_add(1);
      const Status listens = agent.client().listen(static_cast<uint32_t>(hold));
      CHECK(ok(listens) || listens == Status::kStolen);
      const Status status = agent.client().release(static_cast<uint32_t>(hold));
      CHECK(ok(status) || status == Status::kStolen);
      if (status == Status::kStolen) robbed.fetch_add(1);
      agent.settle();
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t n = 1; n <= kThreads; n++) threads.emplace_back(steal, n);
  for (std::thread& thread : threads) thread.join();
  CHECK(robbed.load() < stolen.load());
  Agent agent(kThreads + 1);
  const int32_t hold = agent.acquire(agent.open(segment, 0) | kExclusive, true, 100000);
  CHECK(hold >= 0);
  CHECK_EQ(agent.client().release(static_cast<uint32_t>(hold)), Status::kOk);
}

TEST("threads that come, take a lock and end, holding it and waiting for it, leave it to the others", 240) {
  harness::Segment segment;
  std::atomic<uint32_t> done{0};
  const auto come_and_go = [&](uint32_t number) {
    for (int life = 0; life < kRounds / 8; life++) {
      Agent agent(number);
      const uint32_t key = agent.open(segment, 0);
      const int32_t hold = agent.acquire(key | (life % 2 == 0 ? kExclusive : 0), true, 100000);
      CHECK(hold >= 0);
      if (life % 3 == 0) agent.client().enqueue(key | kExclusive, true);  // its own queue place goes with it
      if (life % 3 == 1) CHECK_EQ(agent.client().release(static_cast<uint32_t>(hold)), Status::kOk);
      agent.settle();
    }
    done.fetch_add(1);
  };
  std::vector<std::thread> threads;
  for (uint32_t n = 1; n <= kThreads; n++) threads.emplace_back(come_and_go, n);
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(done.load(), static_cast<uint32_t>(kThreads));
}

TEST(
    "threads that come to many namespaces and leave them, while others wait there, are served in all of them",
    240) {
  constexpr int kSegments = 14;  // more than stay mapped without a lock
  std::vector<std::unique_ptr<harness::Segment>> segments;
  for (int n = 0; n < kSegments; n++) segments.push_back(std::make_unique<harness::Segment>());
  const auto wander = [&](uint32_t number) {
    Agent agent(number);
    for (uint32_t round = 0; round < 4 * kRounds; round++) {
      const uint32_t id = agent.open(*segments[(round * (2 * number + 1)) % kSegments], 0);
      const int32_t hold = agent.acquire(id | kExclusive, true, 100000);
      CHECK(hold >= 0);
      if (round % 8 == 0) usleep(100);
      CHECK_EQ(agent.client().release(static_cast<uint32_t>(hold)), Status::kOk);
      agent.settle();
      agent.client().close_lock(id >> Client::kKeyBits);
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t n = 1; n <= kThreads; n++) threads.emplace_back(wander, n);
  for (std::thread& thread : threads) thread.join();
  Member boss(segments[0]->name());
  CHECK(!boss.arena->is_corrupt());
}

}  // namespace
