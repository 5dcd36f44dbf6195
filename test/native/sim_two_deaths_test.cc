// Two deaths, the second one inside the recovery from the first: an actor dies before the k-th step of an operation, another
// one recovers it and dies before its j-th step, a third one recovers both; for every operation and every pair (k, j). Whoever
// else is there (a holder, waiters in the queue) gets what is due to it, and nothing is lost. As in
// death_at_every_step_test.cc, which does the first death with real processes, a step is what others can see.
#include <functional>
#include <optional>

#include "sim_thread.h"

namespace {

using sim::Host;
using sim::Mode;
using sim::SlotRef;
using sim::State;
using sim::Status;
using sim::Thread;
using sim::Try;
using sim::Turn;

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

struct Case {
  const char* name;
  const char*
      before;  // who is there, in this order: h/H holds shared/exclusively, w/W waits, a/A waits asynchronously,
               // d/D died holding, g died inside the latch
  void (*prepare)(Thread&);  // the first one to die, before its steps are counted
  void (*act)(Thread&);      // and after
};

void nothing(Thread&) {}
template <Mode mode>
void take(Thread& t) {
  uint64_t token;
  while (t.arena().try_acquire(t.ref(0), mode, Turn::kFront, &token) == Try::kRecovering) {
    t.arena().finish_recovery(t.ref(0).lock_index);
  }
}
template <Mode mode>
void queue(Thread& t) {
  uint64_t token;
  const Status status = t.arena().enqueue(t.ref(0), mode, 0);
  if (ok(status)) t.arena().react(t.ref(0), mode, &token);
}
void queue_async(Thread& t) { t.arena().enqueue(t.ref(0), kX, proclock::kSlotAsync); }
template <Mode mode>
void be_granted(Thread& t) {
  uint64_t token;
  if (ok(t.arena().react(t.ref(0), mode, &token))) t.arena().settle_grant(t.ref(0));
}
void release(Thread& t) { t.arena().release(t.ref(0)); }
void downgrade(Thread& t) { t.arena().downgrade(t.ref(0)); }
void withdraw(Thread& t) { t.arena().withdraw(t.ref(0)); }
void steal(Thread& t) {
  uint64_t token;
  sim::the_world.counts.steals++;
  t.arena().steal(t.ref(0), &token);
}
void recover(Thread& t) {
  for (uint32_t index = 1; index <= t.arena().processes_used(); index++) t.arena().recover_if_dead(index);
}
void leave(Thread& t) { t.arena().leave(t.ref(0)); }
void take_turns(Thread& t) {
  proclock::ScanSeen seen;
  for (int n = 0; n < 3; n++) {
    t.arena().want(t.ref(0).lock_index);
    t.arena().tick(&seen);
  }
}
void open_another(Thread& t) {
  SlotRef ref;
  t.arena().open_lock(sim::name_of("another lock, with a name of some length"), 9, &ref);
}

const Case kCases[] = {
    {"attach", "",
     [](Thread& t) {
       t.host().arena->unbind(t.ref(0));
       t.host().arena->detach();
     },
     [](Thread& t) { t.host().arena->attach(t.host().identity()); }},
    {"detach", "", [](Thread& t) { t.arena().unbind(t.ref(0)); }, [](Thread& t) { t.arena().detach(); }},
    {"open a new name", "", nothing, open_another},
    {"open a known name", "", nothing,
     [](Thread& t) {
       SlotRef ref;
       t.arena().open_lock(sim::name_of(sim::World::name(0)), 9, &ref);
     }},
    {"bind", "", nothing,
     [](Thread& t) {
       SlotRef ref;
       t.arena().bind(t.ref(0).lock_index, 9, &ref);
     }},
    {"unbind", "", nothing, [](Thread& t) { t.arena().unbind(t.ref(0)); }},
    {"acquire shared", "", nothing, take<kS>},
    {"acquire exclusive", "", nothing, take<kX>},
    {"acquire shared beside a reader", "h", nothing, take<kS>},
    {"try in vain", "h", nothing, take<kX>},
    {"acquire beside a reader, with a writer waiting", "hW", nothing, take<kS>},
    {"queue up behind a holder", "H", nothing, queue<kX>},
    {"queue up shared behind readers", "Hww", nothing, queue<kS>},
    {"queue up behind waiters", "HWw", nothing, queue<kX>},
    {"queue up without a reason", "", nothing, queue<kX>},
    {"be granted exclusively", "", queue_async, be_granted<kX>},
    {"be granted shared, with a reader and a writer behind", "",
     [](Thread& t) { t.arena().enqueue(t.ref(0), kS, 0); }, be_granted<kS>},
    {"withdraw alone", "H", queue<kX>, withdraw},
    {"withdraw at the front, where others fit in", "hW", queue<kS>, withdraw},
    {"release shared", "", take<kS>, release},
    {"release exclusive", "", take<kX>, release},
    {"release to nobody, beside a reader", "h", take<kS>, release},
    {"downgrade", "", take<kX>, downgrade},
    {"downgrade, and release", "", take<kX>,
     [](Thread& t) {
       downgrade(t);
       release(t);
     }},
    {"leave an exclusive hold", "", take<kX>, leave},
    {"leave a shared hold", "", take<kS>, leave},
    {"leave, and recover what was left", "", take<kX>,
     [](Thread& t) {
       sim::the_world.truths[0].abandoned = sim::Truth::Mark::kEither;
       leave(t);
       t.arena().recover_left();
     }},
    {"leave as a waiter, with others behind", "HWw", queue<kX>, leave},
    {"take a turn of the detector", "D", nothing, take_turns},
    {"rebuild in a turn of the detector", "HWwg", nothing, take_turns},
    {"steal from a writer", "H", nothing, steal},
    {"steal from readers", "hh", nothing, steal},
    {"steal, with waiters", "HWw", nothing, steal},
    {"steal from a dead writer", "D", nothing, steal},
    {"steal, and release", "HW", nothing,
     [](Thread& t) {
       steal(t);
       release(t);
     }},
    {"recover a dead writer", "D", nothing, recover},
    {"recover a dead reader beside a live one", "hd", nothing, recover},
    {"recover two dead readers", "dd", nothing, recover},
    {"rebuild", "g", nothing, recover},
    {"rebuild around a holder and waiters", "HWwwg", nothing, recover},
    {"rebuild around readers", "hhAg", nothing, recover},
    {"look at a lock", "D", nothing, [](Thread& t) { t.arena().look(t.ref(0).lock_index); }},
};

// With somebody who waits while the first one holds: they queue up after it has prepared.
const Case kCasesWithQueue[] = {
    {"release to a writer", "W", take<kX>, release},
    {"release shared to a writer", "W", take<kS>, release},
    {"release to readers and a writer", "wwW", take<kX>, release},
    {"release to event loops", "AaA", take<kX>, release},
    {"release to a writer that is passed over", "AW", take<kX>, release},
    {"leave an exclusive hold to a writer", "W", take<kX>, leave},
    {"leave an exclusive hold to readers and a writer", "wwW", take<kX>, leave},
    {"leave an exclusive hold to event loops", "AaA", take<kX>, leave},
    {"downgrade with readers and a writer waiting", "wwW", take<kX>, downgrade},
    {"downgrade with a writer waiting, and release", "W", take<kX>,
     [](Thread& t) {
       downgrade(t);
       release(t);
     }},
};

struct Play {
  const Case* the_case = nullptr;
  bool eager = false;  // the waiters run as soon as they are woken
  uint32_t first_step = 0, second_step = 0;
  Host* first = nullptr;
  Host* second = nullptr;
  std::optional<Thread> threads[sim::kActorsMax];
  char roles[sim::kActorsMax];
};
Play play;

const char* describe() {
  static char text[200];
  snprintf(text, sizeof text, "%s, deaths before step %u, and before step %u of the recovery%s",
           play.the_case->name, play.first_step, play.second_step, play.eager ? ", eager waiters" : "");
  return text;
}

void sleep_until_gone(const Host* host) {
  while (host->open) sim::the_machine.sleep(nullptr, sim::kForever, true);
}

void act(sim::Actor& actor, void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  const char role = play.roles[actor.id];
  switch (role) {
    case 'h':
    case 'H':
      SIM_CHECK(thread.acquire(0, {role == 'H' ? kX : kS, false, false, 0}));
      actor.priority = 2;
      sleep_until_gone(play.second);
      thread.release(0);
      return thread.finish();
    case 'w':
    case 'W':
    case 'a':
    case 'A':
      actor.priority = play.eager ? 60 : 1;
      thread.acquire(
          0, {role == 'W' || role == 'A' ? kX : kS, false, role == 'a' || role == 'A', sim::kForever});
      thread.release(0);
      return thread.finish();
    case 'd':
      take<kS>(thread);
      return;
    case 'D':
      take<kX>(thread);
      return;
    case 'g':
      actor.fuse = 9;
      return queue<kX>(thread);
    case '1':
      play.the_case->prepare(thread);
      actor.priority = 50;
      sim::the_machine.sleep(nullptr, sim::the_machine.now_ns + 1, false);  // when all others sleep
      actor.fuse = play.first_step;
      return play.the_case->act(thread);
    case '2':
      sleep_until_gone(play.first);
      actor.fuse = play.second_step;
      return recover(thread);
    default:
      sleep_until_gone(play.first);
      sleep_until_gone(play.second);
      return thread.finish();
  }
}

void cast(char role, uint32_t priority) {
  Host& host = sim::the_world.add_host();
  host.attach();
  sim::Actor& actor = sim::the_machine.add_actor(host, act, nullptr);
  actor.priority = priority;
  play.roles[actor.id] = role;
  play.threads[actor.id].emplace(host, actor);
  actor.argument = &*play.threads[actor.id];
  play.threads[actor.id]->open(0);
  if (role == '1') play.first = &host;
  if (role == '2') play.second = &host;
}

struct Reached {
  bool first, second;
};

Reached perform(const Case& the_case, bool queue_later, bool eager, uint32_t first_step,
                uint32_t second_step) {
  play.the_case = &the_case;
  play.eager = eager;
  play.first_step = first_step;
  play.second_step = second_step;
  sim::the_machine.describe = describe;
  sim::Plan plan;
  plan.by_priority = true;
  sim::the_machine.begin(plan, 1, nullptr, &sim::the_world);
  sim::the_world.begin();
  uint32_t priority = 100;
  if (queue_later) cast('1', priority--);
  for (const char* role = the_case.before; *role != '\0'; role++) cast(*role, priority--);
  if (!queue_later) cast('1', priority--);
  cast('2', priority--);
  cast('3', priority--);
  sim::the_machine.run();
  Reached reached = {false, false};
  for (const sim::Actor& actor : sim::the_machine.actors()) {
    if (play.roles[actor.id] == '1') reached.first = actor.state == State::kDead;
    if (play.roles[actor.id] == '2') reached.second = actor.state == State::kDead;
  }
  sim::the_world.inspect();
  return reached;
}

TEST(
    "a second death at any step of the recovery from the first one wedges nothing, opens nothing and loses "
    "nothing",
    600) {
  const uint64_t begun = harness::now_ms();
  uint64_t pairs = 0, operations = 0;
  const auto all = [&](const Case& the_case, bool queue_later) {
    uint32_t first = 0;
    uint64_t of_case = 0;
    const bool waits = strpbrk(the_case.before, "wWaA") != nullptr;
    for (bool more = true; more;) {
      first++;
      for (const bool eager : {false, true}) {
        if (eager && !waits) continue;
        Reached reached = {true, true};
        for (uint32_t second = 1; reached.second; second++) {
          reached = perform(the_case, queue_later, eager, first, second);
          of_case++;
        }
        more = reached.first;
      }
    }
    printf("  %3u steps, %6llu pairs: %s\n", first - 1, static_cast<unsigned long long>(of_case),
           the_case.name);
    pairs += of_case;
    operations++;
  };
  for (const Case& the_case : kCases) all(the_case, false);
  for (const Case& the_case : kCasesWithQueue) all(the_case, true);
  printf("  %llu (step, step of the recovery) pairs of %llu operations, all there are, in %llu ms\n",
         static_cast<unsigned long long>(pairs), static_cast<unsigned long long>(operations),
         static_cast<unsigned long long>(harness::now_ms() - begun));
}

}  // namespace
