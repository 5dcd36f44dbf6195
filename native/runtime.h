// What one process has of proclock: the namespaces that it has entered, the JavaScript threads that use them, and two
// native threads. Knows nothing of Node-API.
//
//   Runtime  one per process. The doorbell thread sleeps on the doorbells of all namespaces in which somebody waits
//            asynchronously, and hands pokes to the right thread. The watch thread sleeps on the pidfds of the processes
//            in the namespaces in which anybody waits, and has a tick for what no event tells. Both start with the
//            first wait that needs them.
//   Space    one namespace: its mapping, its arena, who waits in it. Shared by all threads of the process.
//   Client   one JavaScript thread (more exactly: one instance of the addon in it): its open locks, holds and waits.
//            All methods run on that thread, but for notify_ready().
#pragma once

#ifdef __linux__

#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core.h"

namespace proclock {

class Client;
class Runtime;

constexpr uint64_t kTickNs = 50000000;  // how long an unusual state may go unnoticed
// The same where nothing has happened for so long to any lock that is waited for: who waits is to cost nothing.
constexpr uint64_t kQuietTickNs = 1000000000;
constexpr uint32_t kWatchedMax = 256;  // pidfds per process; whoever is beyond is asked on ticks
constexpr size_t kLookedPerTick = 32;  // locks looked at on a tick where processes can not be watched
constexpr uint64_t kEndPatienceNs = 1000000000;  // with a stalled guard, where there is no later
constexpr uint32_t kWatchLingerTicks = 20;  // how long a namespace stays watched after the last wait in it
constexpr size_t kUnusedSpacesMax = 8;      // namespaces without an open lock that stay mapped
constexpr size_t kIdleHoldsMax = 64;  // bound slots that a closed hold leaves for the next one, per lock

// How often a synchronous acquire tries before it queues itself, and when it was woken and somebody else got in first: for
// some microseconds.
constexpr int kSpinRounds = 24;
// And before it sleeps as the front of the queue. What is shorter than being woken is worth waiting for.
constexpr int kFrontRounds = 96;
constexpr int kUnspunMax = 32;  // waits until one tries again whether spinning pays by now

using LinuxArena = Arena<LinuxPlatform>;
static_assert(kQuietTickNs > LinuxArena::kQuietNs, "whoever looks so seldom is told of the next poke");

// For what has to be done now, or never.
template <class Call>
Status patiently(Call call) {
  const uint64_t deadline = LinuxPlatform::monotonic_ns() + kEndPatienceNs;
  Status status = call();
  while (status == Status::kStalled && LinuxPlatform::monotonic_ns() < deadline) status = call();
  return status;
}

class Space final : public PokeSink {
 public:
  Space(std::string name, ProcessIdentity self) : name_(std::move(name)), self_(self) {}
  Status open(int64_t group, OpenFailure* failure);
  void leave();              // all locks are closed: gives the process entry back
  void forget_after_fork();  // in the child: these are the parent's

  const std::string& name() const { return name_; }
  LinuxArena& arena() { return *arena_; }
  LinuxPlatform::Memory& memory() { return memory_; }
  const ProcessIdentity& self() const { return self_; }

  // kOk, or why this namespace can not be used any more.
  Status state() const { return state_.load(std::memory_order_relaxed); }
  // Asks the file system whether the segment is still there, at most once a tick.
  Status check(double now_ms) {
    const double last = checked_ms_.load(std::memory_order_relaxed);
    return now_ms - last < kTickNs / 1e6 && now_ms >= last ? state() : check_now(now_ms);
  }
  Status check_now(double now_ms);

  // Waits of this process.
  void add_wait(uint32_t lock);
  void remove_wait(uint32_t lock);
  // True if the doorbell thread may not be listening.
  bool add_async(uint32_t slot, Client* client, uint32_t hold);
  void remove_async(uint32_t slot);
  // From now on the doorbell thread listens here, wait or no wait. True if it may not be doing that yet.
  bool keep_listening();
  // For the doorbell thread, which does as it is told: is it to listen here until it wakes up the next time?
  bool listens();
  std::vector<uint32_t> waited_locks();
  // Has a process entered that the watch thread does not know of? (It knows of none before it watches at all.)
  bool wants_watch() const { return watched_epoch_.load(std::memory_order_seq_cst) != attach_epoch(); }
  uint64_t attach_epoch() const { return arena_->header().attach_epoch.load(std::memory_order_relaxed); }

  void poked(const std::vector<uint32_t>& slots) override;
  void poke_all();  // the namespace is gone: let every waiter find out

  uint32_t locks_open = 0;  // guarded by the runtime's mutex

  // Of the watch thread.
  struct Watched {
    int pidfd = -1;
    ProcessIdentity identity;
  };
  void set_watched(uint64_t epoch) { watched_epoch_.store(epoch, std::memory_order_seq_cst); }
  // Was there a wait since the last call, or is there one now?
  bool was_waited_in();
  // Is there nothing but waits to which nothing happens? Then events tell all that matters.
  bool is_quiet();
  std::vector<Watched> watched;  // by process index
  bool blind = false;            // some processes can not be watched: they are asked on ticks
  uint32_t quiet_ticks = 0;

 private:
  struct AsyncWait {
    Client* client;
    uint32_t hold;
  };
  const std::string name_;
  const ProcessIdentity self_;
  LinuxPlatform::Memory memory_;
  std::unique_ptr<LinuxArena> arena_;
  std::atomic<Status> state_{Status::kOk};
  std::atomic<double> checked_ms_{0};
  static constexpr uint64_t kUnwatched = ~uint64_t{0};
  std::atomic<uint64_t> watched_epoch_{kUnwatched};
  std::atomic<uint32_t> waits_{0};
  std::atomic<uint32_t> waits_begun_{0};
  uint32_t waits_seen_ = 0;
  uint32_t begun_seen_ = 0;
  uint64_t begun_ns_ = 0;  // when a wait was last seen to have begun
  std::mutex mutex_;       // of what follows
  bool kept_ = false;      // the doorbell thread listens for the whole life
  bool listens_ = false;   // it does now, and goes on until it wakes up and nobody waits
  std::unordered_map<uint32_t, AsyncWait> async_;
  std::unordered_map<uint32_t, uint32_t> waited_;
};

class Runtime {
 public:
  static Runtime& get();

  // The space of this name, entered if it has not been; counts one open lock in it.
  Status enter(const std::string& name, int64_t group, std::shared_ptr<Space>* space, OpenFailure* failure);
  void exit(const std::shared_ptr<Space>& space);

  void watch();  // somebody waits: the watch thread has work
  // Something happens: if the watch thread is to look only in a second, it looks now, and more often.
  void watch_closely() {
    if (slow_.load(std::memory_order_seq_cst)) watch();
  }
  bool is_slow() const { return slow_.load(std::memory_order_relaxed); }
  void doorbell();  // somebody waits asynchronously: the doorbell thread has work

 private:
  Runtime();
  static void* run_doorbell(void* runtime);
  static void* run_watch(void* runtime);
  void ring_loop();
  void watch_loop();
  void sleep_on_doorbells(uint32_t control, const std::vector<std::shared_ptr<Space>>& spaces,
                          const std::vector<uint32_t>& seen);
  void refresh_watched(Space& space, uint32_t number);
  bool slows_down(const std::vector<std::shared_ptr<Space>>& watched);
  void tick(Space& space);
  void unwatch(Space& space, uint32_t process);
  std::vector<std::shared_ptr<Space>> all_spaces();
  void reset_after_fork();

  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Space>> spaces_;
  std::vector<std::shared_ptr<Space>> unused_;
  ProcessIdentity self_;
  bool doorbell_runs_ = false;
  bool watch_runs_ = false;
  int watch_epoll_ = -1;
  int watch_event_ = -1;
  std::atomic<uint32_t> control_{0};  // futex of the doorbell thread: the set of its spaces has changed
  std::atomic<bool> can_wait_many_{true};
  std::atomic<bool> slow_{false};  // the watch thread looks at nothing before the next kQuietTickNs are over
  uint32_t watched_ = 0;           // pidfds; of the watch thread alone
};

// How long to try before sleeping. That pays if the holder runs on another processor and is short; if the two take turns on
// one, it only keeps the holder from running. Nobody says which it is, so what came of it lately decides.
class Spinning {
 public:
  explicit Spinning(int rounds_max) : rounds_max_(rounds_max), rounds_(rounds_max) {}
  // How many rounds this time.
  int rounds() {
    if (rounds_ == 0 && ++unspun_ == kUnspunMax) rounds_ = rounds_max_;
    return rounds_;
  }
  void ended(bool granted) {
    if (rounds_ != 0) unspun_ = 0;
    rounds_ = granted ? rounds_max_ : rounds_ / 2;
  }

 private:
  const int rounds_max_;
  int rounds_;
  int unspun_ = 0;  // how many in a row did not try at all
};

class Client {
 public:
  // What a call reports beyond its result; read by JavaScript through a typed array over it.
  struct Report {
    int32_t token_low;
    int32_t token_high;
    int32_t abandoned;
    int32_t ready;    // waits of this thread were poked, or work is owed: drain()
    int32_t granted;  // enqueue() did not have to wait after all
    int32_t owed;  // holds with work that could not be done, since the guard was stalled: settle_owed() later
    // Argument and result of the calls of the uncontended path: passed here they cost nothing.
    int32_t argument;
    int32_t result;
    int32_t forks;  // raw fork()s that made this process from one that had this client
  };
  // Set in a result >= 0 if the report has more to say: `ready` or `abandoned`.
  static constexpr int32_t kAttention = 1 << 30;
  using Notify = void (*)(void* data);  // from any thread: have drain() called

  Client(uint32_t thread, Report* report, Notify notify, void* data);
  ~Client();  // the thread ends: gives back everything

  Status open_lock(const std::string& space, int64_t group, const Name& name, uint32_t* id,
                   OpenFailure* failure);
  void close_lock(uint32_t id);

  // A key says which lock, and how: its id, then a bit for strict FIFO, then one for exclusive mode.
  static constexpr uint32_t kKeyExclusive = 1;
  static constexpr uint32_t kKeyFair = 2;
  static constexpr uint32_t kKeyBits = 2;
  // Each returns a hold (>= 0) or a Status.
  int32_t try_acquire(uint32_t key);
  int32_t enqueue(uint32_t key, bool async);
  Status check(uint32_t id);  // is the namespace still the one that newcomers find?
  Status look(uint32_t id);
  int32_t steal(uint32_t key);  // the exclusive hold of this lock, from whoever has it
  Status listen(
      uint32_t hold);  // from now on it becomes ready (take_ready) when it is stolen; kStolen: it was
  Status check_hold(uint32_t hold);  // kOk or kStolen
  Status wait(uint32_t hold, double timeout_ms);
  Status react(uint32_t hold) { return react(hold, 0); }
  Status withdraw(uint32_t hold);
  Status release(uint32_t hold);
  Status downgrade(uint32_t hold);
  Status abandoned(uint32_t hold, AbandonedInfo* info) const;
  Status query(uint32_t id, bool patient, std::vector<HolderInfo>* infos);
  // The whole namespace of that lock.
  Status query_all(uint32_t id, std::vector<HolderInfo>* infos,
                   std::unordered_map<uint32_t, LockName>* names);
  Status clear_abandoned(uint32_t hold);
  bool held_by_thread(uint32_t id);  // by any instance of the addon in this thread

  std::vector<uint32_t> take_ready();
  uint32_t settle_owed();  // how many are left
  uint32_t async_waits() const { return async_waits_; }
  void notify_ready(uint32_t hold);  // from any thread
  // In the child of a raw fork(): tells the clients of the one thread that it has.
  static void count_fork();

 private:
  enum class State : uint8_t { kFree, kIdle, kHeld, kWaiting, kWaitingAsync, kEnding };
  // What is left to do for a hold when its namespace's guard was stalled. A release has happened by then, a wait has
  // ended for its caller: only the others in the queue are still to learn of it.
  enum Owed : uint8_t { kSettleGrant = 1, kReleaseDuty = 2, kWithdraw = 4, kReact = 8 };
  struct OpenLock {
    std::shared_ptr<Space> space;
    uint32_t index = 0;
    uint32_t slots = 0;  // bound for this lock by this client
    uint32_t held = 0;
    bool closed = false;
    Spinning newcomer{kSpinRounds};  // of a synchronous acquire, before it queues itself
    Spinning front{kFrontRounds};    // and when it is the front then, before it sleeps
    std::vector<uint32_t> idle;      // holds that are ready for use
  };
  struct Hold {
    LinuxArena::SlotRef ref;
    OpenLock* lock = nullptr;
    uint32_t lock_id = 0;
    State state = State::kFree;
    Mode mode = Mode::kShared;
    uint8_t owed = 0;
    bool listens = false;
  };
  int32_t spin(uint32_t key, OpenLock& lock);
  Status react(uint32_t hold, int spin_rounds);
  OpenLock* open_lock_at(uint32_t id);
  bool holds(const OpenLock& wanted) const;
  Hold* hold_at(uint32_t index, State state);
  Hold* waiting_at(uint32_t index);
  Status take_idle(uint32_t id, OpenLock& lock, uint32_t* hold);
  Status add_hold(uint32_t id, OpenLock& lock, const LinuxArena::SlotRef& ref);
  void give_idle(uint32_t index, Hold& hold);
  void end_lock(uint32_t id);
  void end_hold(uint32_t index, Hold& hold, uint8_t owed);
  void owe(uint32_t index, uint8_t what);
  Status settle(uint32_t index);
  Status granted(uint32_t index, Hold& hold, uint64_t token);
  void end_wait(Hold& hold);
  void fill_report(const Hold& hold, uint64_t token);

  // The clients of a thread: a list of its own, because another thread's change of a common one may be half done when the
  // process forks, and stays so in the child.
  static thread_local Client* first_of_thread_;
  Client* next_of_thread_;

  const uint32_t thread_;
  const pthread_t os_thread_;
  Report own_report_ = {};
  Report* report_;
  const Notify notify_;
  void* const data_;
  bool entered_ = false;  // a call of ours is under way: its caller is going to look at report_->ready
  uint32_t async_waits_ = 0;
  std::vector<std::unique_ptr<OpenLock>> locks_;
  std::vector<uint32_t> free_locks_;
  std::vector<Hold> holds_;
  std::vector<uint32_t> free_holds_;
  std::vector<uint32_t> owed_;
  std::mutex ready_mutex_;
  std::vector<uint32_t> ready_;
  bool notified_ = false;
};

}  // namespace proclock

#endif  // __linux__
