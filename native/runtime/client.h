// One JavaScript thread (more exactly: one instance of the addon in it): its open locks, holds and waits. All methods run on
// that thread, but for notify_ready().
//
//   client.h         the class
//   client_locks.h   opening and closing, the slots that a lock has ready, what is owed, the end of the thread
//   client_holds.h   acquire without a wait, release, and all that is done to a hold
//   client_waits.h   waits
//   client_upgrades.h  from shared to exclusive
//   client_cycles.h  waits that go round in a circle
#pragma once

#include "runtime.h"

namespace proclock {

// How often a synchronous acquire tries before it queues itself, and when it was woken and somebody else got in first: for
// some microseconds.
constexpr int kSpinRounds = 24;
// And before it sleeps as the front of the queue. What is shorter than being woken is worth waiting for.
constexpr int kFrontRounds = 96;
constexpr int kUnspunMax = 32;        // waits until one tries again whether spinning pays by now
constexpr int kSpinPauses = 16;       // between two tries
constexpr size_t kIdleHoldsMax = 64;  // bound slots that a closed hold leaves for the next one, per lock

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

// What a call reports beyond its result; read by JavaScript through a typed array over it.
struct Report {
  int32_t token_low;
  int32_t token_high;
  int32_t abandoned;
  int32_t ready;    // waits of this thread were poked, or work is owed: drain()
  int32_t granted;  // enqueue() did not have to wait after all
  int32_t owed;  // holds with work that could not be done, since the latch was stalled: settle_owed() later
  // Arguments and results of the calls that are made for each acquire: passed here they cost nothing.
  int32_t argument;
  int32_t result;
  int32_t forks;     // raw fork()s that made this process from one that had this client
  int32_t unserved;  // no native thread can be had: serve() every few milliseconds, as long as anybody waits
  int32_t marks_dropped;  // abandoned records that had to make room for other names
  int32_t told;           // with kAgain: what this wait is told of a cycle that it is in: kVictim, kWarns
  int32_t how;            // argument of enqueue()
  int32_t tried;          // of next_ready(): what came of it, a Status
};

template <class P>
class Client {
 public:
  // Set in a result >= 0 if the report has more to say: `ready` or `abandoned`.
  static constexpr int32_t kAttention = 1 << 30;
  using Notify = void (*)(void* data);  // from any thread: have drain() called

  Client(Runtime<P>& runtime, uint32_t thread, Report* report, Notify notify, void* data);
  ~Client();  // the thread ends: gives back everything
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  Status open_lock(const std::string& space, int64_t group, const Name& name, uint32_t* id,
                   OpenFailure* failure, Opening opening = Opening::kMake);
  Status close_lock(uint32_t id);

  // A key says which lock, and how: its id, then a bit for strict FIFO, then one for exclusive mode.
  static constexpr uint32_t kKeyExclusive = 1;
  static constexpr uint32_t kKeyFair = 2;
  static constexpr uint32_t kKeyBits = 2;
  // Each returns a hold (>= 0) or a Status.
  int32_t try_acquire(uint32_t key);
  // How to wait.
  static constexpr uint32_t kAsync = 1;
  static constexpr uint32_t kEnds = 2;    // it has a time-out or a signal
  static constexpr uint32_t kThrows = 4;  // it is to fail where a deadlock is likely
  int32_t enqueue(uint32_t key, uint32_t how);
  int32_t steal(uint32_t key);       // the exclusive hold of this lock, from whoever has it
  Status check(uint32_t id);         // is the namespace still the one that newcomers find?
  Status look(uint32_t id);          // for somebody who was refused: is there a dead holder?
  Status listen(uint32_t hold);      // from now on it becomes ready when it is stolen; kStolen: it was
  Status check_hold(uint32_t hold);  // kOk or kStolen
  Status wait(uint32_t hold, double timeout_ms);
  Status react(uint32_t hold);     // a wait, or a hold that waits to be upgraded
  Status withdraw(uint32_t hold);  // the same
  Status try_upgrade(uint32_t hold);
  Status upgrade(uint32_t hold);  // kAgain: it is going to be ready
  Status release(uint32_t hold);
  Status downgrade(uint32_t hold);
  Status abandoned(uint32_t hold, AbandonedInfo* info) const;
  Status finish(uint32_t hold, Finished what);
  Status last_token(uint32_t id);  // into the report: that of the last exclusive grant of this lock
  int32_t flights(uint32_t id);    // of this lock, so far; a count that begins anew at 0
  // whole: waiters as well, and patiently. Otherwise the holders, if that is possible at once.
  Status query(uint32_t id, bool whole, std::vector<HolderInfo>* infos);
  // The whole namespace of that lock.
  Status query_all(uint32_t id, std::vector<HolderInfo>* infos,
                   std::unordered_map<uint32_t, LockName>* names);
  // The locks of that namespace that a dead holder has left.
  Status marks(uint32_t id, std::vector<MarkedLock>* marks);
  int32_t place(uint32_t hold);      // how many wait ahead of this wait; or a Status
  bool held_by_thread(uint32_t id);  // by any instance of the addon in this thread

  // What a wait is told of a cycle.
  static constexpr int32_t kVictim = 1;   // it is to fail
  static constexpr int32_t kWarns = 2;    // it is to say so
  static constexpr int32_t kUnknown = 4;  // of waits_in_cycles(): not all could be looked at, ask again soon
  // A hold of this thread, and the context that it belongs to.
  struct Owned {
    uint32_t context;
    uint32_t hold;
  };
  uint32_t new_context();
  bool is_wanted(uint32_t hold);
  void leave_context(uint32_t hold);
  // For many waits that look at the same time: which of them had better call look_for_cycle(). Each says what its owner holds before
  // that is found out. False: nobody waits for any of it.
  bool say_contexts(uint32_t wait, const std::vector<Owned>& owned);
  std::vector<uint32_t> waits_in_cycles();
  // For a wait that has lasted a second. `owned`: what the owner of an asynchronous one holds, from the inside out. True: it is
  // to look again soon. The report says what it is told.
  bool look_for_cycle(uint32_t wait, const std::vector<Owned>& owned);
  // The cycle that the wait was told of, if it is still there; otherwise the wait goes on.
  Status cycle_of(uint32_t wait, std::vector<HolderInfo>* infos,
                  std::unordered_map<uint32_t, LockName>* names);
  // Of the namespace of that lock.
  Status locks_in_cycles(uint32_t id, std::vector<LockName>* names);

  // The next hold that was poked, or -1. If it waits it has tried again: `tried` says what came of it.
  int32_t next_ready(Status* tried);
  uint32_t settle_owed();  // how many are left
  bool serve();            // true: it need not be called again for now
  uint32_t async_waits() const { return async_waits_; }
  void notify_ready(uint32_t hold);  // from any thread
  // In the child of a raw fork(): tells the clients of the one thread that it has.
  static void count_fork();
  // The clients of the calling thread. For whoever runs several threads on one, as the simulation does.
  static Client*& of_thread() { return first_of_thread_; }

 private:
  enum class State : uint8_t { kFree, kIdle, kHeld, kWaiting, kWaitingAsync, kEnding };
  // What is left to do for a hold when its namespace's latch was stalled. A release has happened by then, a wait has
  // ended for its caller: only the others in the queue are still to learn of it.
  enum Owed : uint8_t { kSettleGrant = 1, kReleaseDuty = 2, kWithdraw = 4, kReact = 8 };
  using SlotRef = typename Arena<P>::SlotRef;
  struct OpenLock {
    std::shared_ptr<Space<P>> space;
    uint32_t index = 0;
    uint32_t slots = 0;  // bound for this lock by this client
    uint32_t held = 0;
    bool closed = false;
    Spinning newcomer{kSpinRounds};  // of a synchronous acquire, before it queues itself
    Spinning front{kFrontRounds};    // and when it is the front then, before it sleeps
    PokeSeen seen;                   // by our own ticks
    uint32_t want_from = 0;
    OwedSeen owed;
    ScanSeen scan;
    double looked_ms = 0;
    std::vector<uint32_t> idle;  // holds that are ready for use
  };
  struct Hold {
    SlotRef ref;
    OpenLock* lock = nullptr;
    uint32_t lock_id = 0;
    State state = State::kFree;
    Mode mode = Mode::kShared;
    uint8_t owed = 0;
    bool listens = false;
    bool upgrading = false;  // holds, and waits to be upgraded
    CycleSeen cycle;         // of a wait
  };
  // A call of ours is under way: its caller is going to look at report_->ready.
  class Entered {
   public:
    explicit Entered(Client& client) : client_(client), before_(client.entered_) { client.entered_ = true; }
    ~Entered() { client_.entered_ = before_; }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

   private:
    Client& client_;
    const bool before_;
  };
  using Locked = std::lock_guard<typename P::LocalMutex>;

  OpenLock* open_lock_at(uint32_t id);
  Hold* hold_at(uint32_t index, State state);
  Hold* waiting_at(uint32_t index);
  bool holds(const OpenLock& wanted) const;
  bool find_owned(const Space<P>& space, const std::vector<Owned>& owned,
                  std::vector<typename Arena<P>::Owned>* held);
  [[gnu::always_inline]] Status take_idle(uint32_t id, OpenLock& lock, uint32_t* hold);
  [[gnu::noinline, gnu::cold]] Status bind_idle(uint32_t id, OpenLock& lock);
  void add_hold(uint32_t id, OpenLock& lock, const SlotRef& ref);
  [[gnu::always_inline]] void give_idle(uint32_t index, Hold& hold);
  [[gnu::noinline, gnu::cold]] void unbind_idle(uint32_t index, Hold& hold);
  void end_lock(uint32_t id);
  void end_hold(uint32_t index, Hold& hold, uint8_t owed);
  void owe(uint32_t index, uint8_t what);
  void waive(uint32_t index, uint8_t what);
  Status settle(uint32_t index);
  [[gnu::always_inline]] Status granted(uint32_t index, Hold& hold, uint64_t token);
  void report_token(uint64_t token);
  void fill_report(const Hold& hold, uint64_t token);
  int32_t spin(uint32_t key, OpenLock& lock);
  Status react(uint32_t hold, int spin_rounds);
  Hold* upgrading_at(uint32_t index);
  void begin_wait(uint32_t index, Hold& hold);
  void end_wait(Hold& hold);
  Hold* upgradable_at(uint32_t index);
  Status react_upgrade(uint32_t index, Hold& hold);
  Status upgraded(Hold& hold, Status status, uint64_t token);
  void withdraw_upgrade(uint32_t index, Hold& hold);
  void tick(OpenLock& lock);
  Hold* wanting_at(uint32_t index);
  void tell(const Hold& wait);
  bool holds_wanted(const Space<P>& space) const;

  // The clients of a thread: a list of its own, because another thread's change of a common one may be half done when the
  // process forks, and stays so in the child.
  static inline thread_local Client* first_of_thread_ = nullptr;
  Client* next_of_thread_;

  Runtime<P>& runtime_;
  const uint32_t thread_;
  const decltype(P::thread_id()) os_thread_;
  Report own_report_ = {};
  Report* report_;
  const Notify notify_;
  void* const data_;
  bool entered_ = false;
  uint32_t async_waits_ = 0;
  std::vector<std::unique_ptr<OpenLock>> locks_;
  std::vector<uint32_t> free_locks_;
  std::vector<Hold> holds_;
  std::vector<uint32_t> free_holds_;
  std::vector<uint32_t> owed_;
  typename P::LocalMutex ready_mutex_;
  std::vector<uint32_t> ready_;  // from `ready_taken_` on
  size_t ready_taken_ = 0;
  bool notified_ = false;
};

// JavaScript's memory may not be in the child at all: most builds of V8 map it with MADV_DONTFORK. Then no JavaScript
// runs here, and there is nobody to tell.
template <class P>
void Client<P>::count_fork() {
  for (Client* client = first_of_thread_; client != nullptr; client = client->next_of_thread_) {
    new (&client->ready_mutex_) typename P::LocalMutex();  // a thread of the parent may have been in it
    if (P::is_mapped(&client->report_->forks)) client->report_->forks++;
  }
}

template <class P>
typename Client<P>::OpenLock* Client<P>::open_lock_at(uint32_t id) {
  return id < locks_.size() && locks_[id] != nullptr && !locks_[id]->closed ? locks_[id].get() : nullptr;
}

template <class P>
typename Client<P>::Hold* Client<P>::hold_at(uint32_t index, State state) {
  return index < holds_.size() && holds_[index].state == state ? &holds_[index] : nullptr;
}

template <class P>
typename Client<P>::Hold* Client<P>::waiting_at(uint32_t index) {
  Hold* hold = hold_at(index, State::kWaiting);
  return hold != nullptr ? hold : hold_at(index, State::kWaitingAsync);
}

template <class P>
typename Client<P>::Hold* Client<P>::upgrading_at(uint32_t index) {
  Hold* hold = hold_at(index, State::kHeld);
  return hold != nullptr && hold->upgrading ? hold : nullptr;
}

template <class P>
void Client<P>::notify_ready(uint32_t hold) {
  const Locked locked(ready_mutex_);
  ready_.push_back(hold);
  // In a call of ours, on our own thread: the caller sees it when the call returns, and no other thread is needed.
  if (P::thread_id() == os_thread_ && entered_) {
    report_->ready = 1;
    return;
  }
  if (notified_) return;
  notified_ = true;
  notify_(data_);
}

}  // namespace proclock
