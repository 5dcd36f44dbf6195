// What the tests of the client share: an event loop in small, and what the process has of threads and open files.
#pragma once

#include <dirent.h>
#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "world.h"

constexpr uint32_t kExclusive = proclock::Client<proclock::System>::kKeyExclusive;
constexpr uint32_t kFair = proclock::Client<proclock::System>::kKeyFair;
constexpr uint32_t kKeyBits = proclock::Client<proclock::System>::kKeyBits;

// A thread's event loop in small: whoever notifies makes turn() return.
template <class P>
struct BasicLoop {
  explicit BasicLoop(uint32_t thread) : client(proclock::Runtime<P>::get(), thread, &report, notify, this) {}

  static void notify(void* self) {
    auto* loop = static_cast<BasicLoop*>(self);
    std::lock_guard<std::mutex> locked(loop->mutex);
    loop->told = true;
    loop->condition.notify_one();
  }
  // Sleeps until told; false: nobody told anything in the time that a test has.
  bool turn() {
    std::unique_lock<std::mutex> locked(mutex);
    if (report.ready != 0) return true;
    const bool in_time =
        condition.wait_for(locked, std::chrono::milliseconds(harness::kPatienceMs), [this] { return told; });
    told = false;
    return in_time;
  }

  uint32_t open(const char* segment, const std::string& name) {
    uint32_t id = 0;
    proclock::OpenFailure failure;
    const Name as_name = {name.data(), static_cast<uint32_t>(name.size()), false};
    CHECK_EQ(client.open_lock(segment, -1, as_name, &id, &failure), Status::kOk);
    return id << kKeyBits;
  }
  // Reacts to what it is told, until the hold is granted.
  void await(uint32_t hold) {
    for (;;) {
      CHECK(turn());
      if (report.owed != 0) client.settle_owed();
      Status tried;
      for (int32_t ready; (ready = client.next_ready(&tried)) >= 0;) {
        if (tried == Status::kOk && static_cast<uint32_t>(ready) == hold) return;
        CHECK_EQ(tried, Status::kAgain);
      }
    }
  }
  // The same, until so many are.
  void await_grants(size_t count) {
    for (size_t granted = 0; granted < count;) {
      CHECK(turn());
      if (report.owed != 0) client.settle_owed();
      Status tried;
      while (client.next_ready(&tried) >= 0) granted += ok(tried);
    }
  }
  uint32_t acquire(uint32_t key) {
    const int32_t tried = client.try_acquire(key);
    if (tried >= 0) return static_cast<uint32_t>(tried);
    CHECK_EQ(tried, static_cast<int32_t>(Status::kBusy));
    int32_t hold = client.enqueue(key, true);
    while (hold == static_cast<int32_t>(Status::kStalled)) hold = client.enqueue(key, true);
    CHECK(hold >= 0);
    if (report.granted == 0) await(static_cast<uint32_t>(hold));
    return static_cast<uint32_t>(hold);
  }
  void release(uint32_t hold) {
    CHECK_EQ(client.release(hold), Status::kOk);
    if (report.owed != 0) client.settle_owed();
  }

  std::mutex mutex;
  std::condition_variable condition;
  bool told = false;
  proclock::Report report = {};
  proclock::Client<P> client;
};
using Loop = BasicLoop<proclock::System>;

// A process that holds the lock of that name exclusively, from when this returns until it is killed. Its thread has the number 5.
template <class P>
pid_t start_holder(const harness::Segment& segment, const char* name) {
  std::atomic<int>* held = harness::shared<std::atomic<int>>();
  const pid_t pid = harness::start([&] {
    auto* mine = new BasicLoop<P>(5);
    mine->acquire(mine->open(segment.name(), name) | kExclusive);
    held->store(1);
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return held->load() == 1; }));
  return pid;
}

// A process that is inside the latch of a namespace, and does not go on until it is told to.
class StopsInside {
 public:
  explicit StopsInside(const harness::Segment& segment)
      : pid_(harness::start([&] {
          Member self(segment.name());
          Member::Arena::Latched latched(*self.arena);
          CHECK_EQ(latched.status(), Status::kOk);
          page_->is_inside.store(true);
          while (!page_->goes_on.load()) usleep(100);
        })) {
    CHECK(harness::eventually([&] { return page_->is_inside.load(); }));
  }
  void go_on() {
    page_->goes_on.store(true);
    JOIN_OK(pid_);
  }

 private:
  struct Page {
    std::atomic<bool> is_inside{false};
    std::atomic<bool> goes_on{false};
  };
  Page* const page_ = harness::shared<Page>();
  const pid_t pid_;
};

template <class Function>
pthread_t thread(Function* function) {
  pthread_t id;
  CHECK_EQ(pthread_create(
               &id, nullptr,
               [](void* f) -> void* {
                 (*static_cast<Function*>(f))();
                 return nullptr;
               },
               function),
           0);
  return id;
}

inline int native_threads() {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks != nullptr);
  while (const dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    FILE* file = fopen(path, "r");
    char comm[32] = "";
    if (file != nullptr && fgets(comm, sizeof comm, file) != nullptr)
      count += strncmp(comm, "proclock-", 9) == 0;
    if (file != nullptr) fclose(file);
  }
  closedir(tasks);
  return count;
}

inline int open_files(const char* segment) {
  int count = 0;
  DIR* files = opendir("/proc/self/fd");
  CHECK(files != nullptr);
  while (const dirent* entry = readdir(files)) {
    char path[300], target[300] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
    if (readlink(path, target, sizeof target - 1) > 0) count += strstr(target, segment) != nullptr;
  }
  closedir(files);
  return count;
}
