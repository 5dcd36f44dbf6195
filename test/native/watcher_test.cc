// The watcher of processes (native/platform/watcher.h, and each system's own). Whatever fails there means that somebody is not
// watched, and is tried again.
#include <fcntl.h>
#include <sys/resource.h>

#include "interpose.h"
#include "loop.h"

namespace {

using Watcher = proclock::System::Watcher;
using Event = Watcher::Event;

struct Scene {
  static void notify(void* data) { static_cast<Scene*>(data)->told.fetch_add(1); }
  // What has happened in the time that a test has, if anything has.
  std::vector<Event> events(size_t count) {
    std::vector<Event> all;
    CHECK(harness::eventually([&] {
      for (const Event& event : watcher.take_events()) all.push_back(event);
      return all.size() >= count;
    }));
    CHECK_EQ(all.size(), count);
    return all;
  }
  std::atomic<int> told{0};
  Watcher watcher{notify, this};
};

pid_t start_sleeper() {
  return harness::start([] {
    for (;;) pause();
  });
}

// The descriptors of a folder of /proc whose target begins like this.
std::vector<int> descriptors(const std::string& folder, const char* target) {
  std::vector<int> found;
  DIR* files = opendir(folder.c_str());
  CHECK(files != nullptr);
  while (const dirent* entry = readdir(files)) {
    char link[300] = "";
    if (readlink((folder + "/" + entry->d_name).c_str(), link, sizeof link - 1) > 0 &&
        strncmp(link, target, strlen(target)) == 0) {
      found.push_back(atoi(entry->d_name));
    }
  }
  closedir(files);
  return found;
}
int watch_thread() {
  int thread = 0;
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* entry = readdir(tasks)) {
    char comm[32] = "";
    FILE* file = fopen((std::string("/proc/self/task/") + entry->d_name + "/comm").c_str(), "r");
    if (file == nullptr) continue;
    if (fgets(comm, sizeof comm, file) != nullptr && strncmp(comm, "proclock-watch", 14) == 0)
      thread = atoi(entry->d_name);
    fclose(file);
  }
  closedir(tasks);
  return thread;
}

// How many processes are watched in this one.
size_t watched() {
  const int thread = watch_thread();
  return thread == 0
             ? 0
             : descriptors("/proc/self/task/" + std::to_string(thread) + "/fd", "anon_inode:[pidfd]").size();
}

TEST("a process that ends is told of at once, and one that is forgotten is not") {
  Scene s;
  const pid_t first = start_sleeper();
  const pid_t second = start_sleeper();
  CHECK(s.watcher.watch({1, 11}, first, proclock::System::start_time(first)));
  CHECK(s.watcher.watch({1, 12}, second, 0));
  s.watcher.forget({1, 12});
  CHECK(harness::eventually([] { return watched() == 1; }));  // it has heard that
  KILL_AND_JOIN(second);
  KILL_AND_JOIN(first);
  const std::vector<Event> events = s.events(1);
  CHECK(events[0].ended && events[0].key == (Watcher::Key{1, 11}));
  CHECK(s.told.load() >= 1);
}

TEST("one that is gone already, or whose pid is another process's by now, has ended") {
  Scene s;
  const pid_t gone = start_sleeper();
  KILL_AND_JOIN(gone);
  CHECK(s.watcher.watch({1, 1}, gone, 0));
  CHECK(s.events(1)[0].ended);
  CHECK(s.watcher.watch({1, 2}, getpid(), proclock::System::start_time(getpid()) + 1));
  CHECK(s.events(1)[0].ended);
}

TEST("the watcher's descriptors are in no table but its own, and no child has them") {
  LINUX_ONLY("a thread has the descriptors of its process");
  Scene s;
  const pid_t other = start_sleeper();
  CHECK(s.watcher.watch({1, 1}, other, 0));
  CHECK(harness::eventually([] { return watched() == 1; }));
  CHECK_EQ(descriptors("/proc/self/fd", "anon_inode:[pidfd]").size(), 0u);
  JOIN_OK(harness::start([] { CHECK_EQ(descriptors("/proc/self/fd", "anon_inode:[pidfd]").size(), 0u); }));
  KILL_AND_JOIN(other);
  s.events(1);
}

TEST("more than can be watched are said to be not watched, and take nothing from the others") {
  Scene s;
  std::vector<pid_t> others;
  for (size_t n = 0; n < Watcher::kWatchedMax + 3; n++) {
    others.push_back(start_sleeper());
    CHECK(s.watcher.watch({1, n + 1}, others.back(), 0));
  }
  for (const Event& event : s.events(3)) CHECK(!event.ended && event.key.process > Watcher::kWatchedMax);
  for (const pid_t other : others) KILL_AND_JOIN(other);
  for (const Event& event : s.events(Watcher::kWatchedMax)) CHECK(event.ended);
}

// What the watcher has of the host's descriptors.
constexpr const char* kInHost = HARNESS_LINUX ? "pipe:" : "/memfd:kqueue";

TEST(
    "a host that closes the pipe, or the kqueue, or uses its number again: the thread ends, says who is not "
    "watched, and comes again") {
  for (const bool used_again : {false, true})
    JOIN_OK(harness::start([used_again] {
      const std::vector<int> before = descriptors("/proc/self/fd", kInHost);
      Scene s;
      const pid_t other = start_sleeper();
      CHECK(s.watcher.watch({1, 1}, other, 0));
      int pipe = -1;
      for (const int fd : descriptors("/proc/self/fd", kInHost)) {
        if (std::find(before.begin(), before.end(), fd) == before.end()) pipe = fd;
      }
      CHECK(pipe >= 0);
      char path[] = "/tmp/proclock-test-XXXXXX";
      const int users = mkstemp(path);
      unlink(path);
      if (used_again) CHECK_EQ(dup2(users, pipe), pipe);
      if (!used_again) CHECK_EQ(close(pipe), 0);
      const std::vector<Event> events = s.events(1);
      CHECK(!events[0].ended && events[0].key.process == 1);
      CHECK(harness::eventually([] { return watch_thread() == 0; }));
      CHECK(s.watcher.watch({1, 2}, other, 0));
      KILL_AND_JOIN(other);
      CHECK(s.events(1)[0].ended);
      if (used_again) CHECK_EQ(lseek(users, 0, SEEK_END), 0);  // nothing was written to it
      close(users);
    }));
}

TEST("without a descriptor to be had nobody is watched, and as soon as there is one everybody is") {
  Scene s;
  const pid_t other = start_sleeper();
  rlimit files = {};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  const rlimit none = {0, files.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  for (int n = 0; n < 3; n++) CHECK(!s.watcher.watch({1, 1}, other, 0));
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  CHECK(s.watcher.watch({1, 1}, other, 0));
  KILL_AND_JOIN(other);
  CHECK(s.events(1)[0].ended);
}

TEST(
    "a kernel on which a thread can have no table of its own: nobody is watched, and nothing is left "
    "behind") {
  LINUX_ONLY("a thread has the descriptors of its process");
  interpose::no_close_range.store(true);
  Scene s;
  const size_t before = descriptors("/proc/self/fd", "pipe:").size();
  for (int n = 0; n < 3; n++) CHECK(!s.watcher.watch({1, 1}, getpid(), 0));
  CHECK_EQ(descriptors("/proc/self/fd", "pipe:").size(), before);
  CHECK(harness::eventually([] { return watch_thread() == 0; }));
}

TEST("a client whose watcher has come to nothing learns of a death by the detector's turns") {
  LINUX_ONLY("a kqueue can always be had; without a descriptor the next test file has the same");
  interpose::no_close_range.store(true);
  harness::Segment segment;
  const pid_t holder = start_holder<proclock::System>(segment, "client");
  Loop loop(1);
  const int32_t hold = loop.client.enqueue(loop.open(segment.name(), "client") | kExclusive, true);
  CHECK(hold >= 0 && loop.report.granted == 0);
  KILL_AND_JOIN(holder);
  loop.await(static_cast<uint32_t>(hold));
  CHECK_EQ(loop.report.abandoned, 1);
}

}  // namespace
