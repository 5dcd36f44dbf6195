/* Waiting, as in queue.h and upgrade.h: the queue, pokes, who may try, withdrawing, skipping, upgrading, over a lock that slots.pml has shown to
 * be right. The claim: nobody who lives sleeps for ever, whoever dies or is stopped, and nobody is starved.
 *
 * NP processes acquire (shared, exclusive), wait, withdraw, release, downgrade and steal for ever. A process may be
 * killed between any two steps, KILLS times in all, and is started anew when it has been recovered. A lost wake-up is a
 * state in which everybody is at rest, and somebody is asleep: nobody holds then, and nobody is going to do anything.
 * -DLIVENESS is the other formulation, for a stream of others: in every weakly fair run who waits is granted.
 *
 * Labels are the step names of protocol.h and queue.h. What only the latch's owner reads and writes (the list, most
 * flags) is one step; what is touched without the latch (gate, POKED, wake words, doorbells, sleeping) is one step per
 * access.
 *
 * Abstracted, and why that is sound:
 *   generations  a recovery and a downgrade exchange the storage in one step, as slots.pml shows that they do. A slot
 *                that refers to a storage that is not the current one is `old`: its try ends either way, its unlock
 *                does nothing. A1 to A3 are one step: what comes between them makes A3 fail, and the try starts again.
 *   wake words   only "changed since W1" counts: a bit. An asynchronous wait's bit is set by its process's doorbell
 *                thread (Bell), which takes the slot off the doorbell.
 *   sleeping     as the kernel does it: asleep only if the word has not changed, until somebody calls wake. A slice
 *                of a synchronous wait does not end by itself, though the real one does: that would heal what is lost.
 *   time         the barrier is up or down as it likes (-DLIVENESS: it comes up some time after the front changed); a
 *                poke is overdue at any time (TICK). A waiter that was woken and does not run on counts as at rest
 *                (STOP).
 *   lists        a rebuild finds the queue by the tickets, so it is not torn; it derives the gate's flags anew.
 *   Bell         waits with the latch until a dead owner's mess is cleared up by somebody else.
 *   steal        S1 to S5 are steps, since a death between them leaves more or less done. The storage s is nobody's
 *                until S4: the thief's slot is `old` until then. Being robbed is no rest: who was robbed owes nothing,
 *                so whatever it may do yet does not count as something that is going to happen.
 *
 *   upgrades     one that waits is woken as any other wait, by its wake word or by its doorbell (the code has the latter
 *                alone). What the change of generation takes is in slots.pml: here it is one step, as a downgrade is.
 *                Each hold asks once: otherwise one that is refused could go on asking, and never release.
 *   a stalled latch  only what is done later for it differs: LATE leaves the queue some time after the grant, maybe
 *                after the release. Everything else that was stalled blocks on the latch instead.
 *
 * PAIR: slots 0 and 1 are waits of one thread, in the same queue. A thread that does not react is passed over with all
 * its waits at once: whoever finds one POKED and overdue makes it SKIPPED, in one step with the look at POKED; then
 * every other wait of this thread in the queue SKIPPED and POKED, one step each, but not eligible, and rings for each.
 * So all of them learn of it by the same reaction: it takes POKED away and finds SKIPPED. A skipped one enters the
 * latch, takes SKIPPED and POKED away in one step and pokes the front, which may be itself. It takes POKED away as well
 * since it may have been passed over a second time before it got the latch: a POKED without the right to try would tell
 * others that a poke is under way that nobody is going to take back. It pokes since all may have been skipped, and then
 * nobody was poked. Each of the two runs on by itself here, where a real thread does one thing at a time: there are
 * more interleavings, not fewer. Only slot 2 is killed then.
 *
 * Switches: NP, KILLS, NO_SHARED, ASYNC (a bit mask of processes), WITHDRAW, TICK, STOP, DOWNGRADE, UPGRADE, NO_OVERTAKING,
 * LATE; PAIR; SPIN (who belongs to the front tries before it reacts); STEAL (with LIVENESS once, and not by process 0:
 * who is robbed for ever gets nothing for ever); MEET (shared holders may stay for ever, since they wait for each
 * other: a reader that fits in must not sleep); WRITERS (LIVENESS: a bit mask of the processes that are exclusive, the
 * others are shared); MUTANT_x, see mutants.json.
 */
#ifndef NP
#define NP 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef ASYNC
#define ASYNC 0
#endif
#define NONE 15

#define FREE 0
#define IDLE 1
#define TRYING 2
#define HELD 3
#define RELEASING 4
#define STALE 5
#define STOLEN 6

/* what the latch was entered for */
#define ENQUEUE 1
#define SETTLE 2
#define LEAVE 3
#define UNSKIP 4
#define SKIP 5
#define POKE 6
#define LOOK 7
#define DOWN 8
#define STEALING 9
#define FINISH 10
#define UPGRADING 11

/* the slots: word */
byte ph[NP];
bit ex[NP];
bit old[NP];
/* flags */
bit exclusive[NP];
bit queued[NP];
bit eligible[NP];
bit poked[NP];
bit skipped[NP];
#ifdef LATE
bit granted[NP];
#define PASSED_OVER(i) (skipped[i] || granted[i])
#else
#define PASSED_OVER(i) (skipped[i])
#endif
#ifdef UPGRADE
bit up[NP];     /* holds, and waits to be upgraded */
#endif
bit on_bell[NP];
/* wake words: changed since W1; doorbells: changed since the doorbell thread looked */
bit woken[NP];
bit rung[NP];
bit bell_asleep[NP];
/* the gate's flags, and the rwlock of its storage */
bit QUEUED = 0;
bit POKED = 0;
byte rd = 0;
bit wr = 0;
#ifdef STEAL
bit gr = 0;     /* the gate says RECOVERING, since a thief is at work or has died */
#else
#define gr 0
#endif
/* the queue, by ticket */
byte q[NP];
byte qn = 0;

byte latch = NONE;
bit dead[NP];
byte kills = 0;

#define SPINS 2

#define BUSY 0
#define RESTS 1
#define ASLEEP 2
#define STOPPED 3
byte at[NP];
#ifdef LIVENESS
bit barrier = 0;
#ifdef STEAL
bit robbery = 0;
#endif
#endif
#if defined(STEAL) && ASYNC != 0
bit informed[NP]; /* the doorbell has said since the slot was stolen that there is something new about it */
#endif

#ifdef BREADTH_FIRST
#define exclusion 0
#define progress 0
#define telling 0
#else
hidden byte exclusion, progress, telling;
#endif

#if NP == 2
#define ANY(p) (p(0) || p(1))
#elif NP == 3
#define ANY(p) (p(0) || p(1) || p(2))
#else
#define ANY(p) (p(0) || p(1) || p(2) || p(3))
#endif
#define IS_ASYNC(i) ((ASYNC >> (i)) & 1)
#define REFERS(i) (ph[i] >= TRYING && ph[i] <= STALE)
#define GONE(i) (dead[i] && ph[i] != FREE)
#define BESIDE(i) (i != me && !dead[i] && ph[i] == HELD && (ex[me] || ex[i]))
#define LIVE_WRITER(i) (!dead[i] && ph[i] == HELD && ex[i])
#define ROBBED(i) (ph[i] == STOLEN && !queued[i])
#define MOVES(i) ((ph[i] != FREE && at[i] == BUSY && !ROBBED(i)) || (IS_ASYNC(i) && ph[i] != FREE && !bell_asleep[i]))
#define SLEEPS(i) (!dead[i] && at[i] == ASLEEP)
#ifdef TICK
#define SKIPPABLE(i) (queued[i] && poked[i] && !skipped[i])
#define TICKS (POKED && ANY(SKIPPABLE))
#else
#define TICKS false
#endif
#define GONE_NOW(i) (i == d)
#ifdef PAIR
#define MATE(i) ((i) < 2 && queued[1 - (i)])
#define PASSING passing
#else
#define MATE(i) false
#define PASSING false
#endif
#define STILL (!ANY(MOVES) && !ANY(GONE) && latch == NONE && !TICKS)
#ifdef MEET
#define HOLDS(i) (!dead[i] && ph[i] == HELD)
/* Beside shared holders there is room for shared waiters that head the queue. */
#define LOST (STILL && ANY(SLEEPS) && (!ANY(HOLDS) || (at[q[0]] == ASLEEP && !exclusive[q[0]])))
#else
#define LOST (STILL && ANY(SLEEPS))
#endif

#if defined(STEAL) && ASYNC != 0
#define IGNORANT(i) (!dead[i] && ROBBED(i) && IS_ASYNC(i) && !informed[i])
#define UNTOLD (STILL && ANY(IGNORANT))
#endif

/* The kernel's: wakes whoever sleeps, does nothing otherwise. */
inline wake(who) {
  if
  :: !IS_ASYNC(who) -> if :: at[who] == ASLEEP -> at[who] = BUSY :: else fi
  :: else -> bell_asleep[who] = 0
  fi
}

inline remove(who) {
  i = 0;
  j = 0;
  do
  :: i < qn -> if :: q[i] != who -> q[j] = q[i]; j++ :: else fi; i++
  :: else -> break
  od;
  if :: j < qn -> q[j] = 0; qn = j :: else fi;
  i = 0;
  j = 0;
  if :: !IS_ASYNC(who) -> woken[who] = 0 :: else fi;
  queued[who] = 0; eligible[who] = 0; poked[who] = 0; skipped[who] = 0; exclusive[who] = 0;
#ifdef UPGRADE
  up[who] = 0;
#endif
#ifdef LATE
  granted[who] = 0;
#endif
  if :: qn == 0 -> QUEUED = 0; POKED = 0 :: else fi
}

/* The first that was not passed over, NONE if there is none. */
inline find_front(found) {
  found = NONE;
  i = 0;
  do
  :: i < qn && found == NONE -> if :: !PASSED_OVER(q[i]) -> found = q[i] :: else fi; i++
  :: else -> break
  od;
  i = 0
}

inline choose_mode() {
#ifdef WRITERS
  m = (WRITERS >> me) & 1
#else
  if
#ifndef NO_SHARED
  :: m = 0
#endif
  :: m = 1
  fi
#endif
}

inline front_changed() {
#if defined(LIVENESS) && defined(UPGRADE)
  barrier = (qn > 0 && up[q[0]])
#elif defined(LIVENESS)
  barrier = 0
#else
  skip
#endif
}

#ifdef UPGRADE
#define IS_UP(i) (up[i])
#define HOLDS_AS_WELL(i) (i != me && ph[i] == HELD)
/* Who belonged to the front behind an upgrader may try no more. */
inline demote() {
  i = 1;
  do
  :: i < qn && (eligible[q[i]] || PASSED_OVER(q[i])) ->
    eligible[q[i]] = 0;
    if :: !skipped[q[i]] -> poked[q[i]] = 0 :: else fi;
    i++
  :: else -> break
  od;
  i = 0
}
/* An upgrade that has come to its end leaves the queue. */
inline end_upgrade(who) {
  remove(who); front_changed();
  POKED = 0
}
#endif

/* A new generation: live shared holders are carried over, what else refers to the old storage is on its own. */
inline change() {
  rd = 0;
  wr = 0;
  i = 0;
  do
  :: i < NP ->
    if
    :: ph[i] == HELD && !ex[i] && !GONE_NOW(i) -> rd++
    :: ph[i] == TRYING && !old[i] -> ph[i] = STALE; old[i] = 1
    :: (ph[i] == RELEASING || ph[i] == STALE) && !old[i] -> old[i] = 1
    :: else
    fi;
    i++
  :: else -> break
  od;
  i = 0
}
inline freeze() {
  i = 0;
  do
  :: i < NP -> if :: ph[i] == TRYING && !old[i] -> ph[i] = STALE :: else fi; i++
  :: else -> break
  od;
  i = 0
}
#ifdef UPGRADE
/* U2 to U8 */
inline take_alone() { change(); rd = 0; wr = 1; ex[me] = 1 }
#endif
/* The doorbell of a process. */
inline ring(who) { on_bell[who] = 1; rung[who] = 1; bell_asleep[who] = 0 }

#ifdef STEAL
#ifdef LIVENESS
#define MAY_STEAL (!robbery && me != 0)
#define STEALS robbery = 1
#else
#define MAY_STEAL true
#define STEALS skip
#endif
#define OPEN gr = 0
#else
#define OPEN skip
#endif

proctype P(byte me) {
  byte k = 0, d = NONE, why = 0, todo = 0, later = 0, back = 0, i = 0, j = 0;
#ifdef SPIN
  byte front = 0; /* SPINS: a try before W2 */
#else
  bit front = 0;
#endif
#ifdef PAIR
  bit passing = 0;
#endif
  bit m = 0, undo = 0, rebuilt = 0, again = 0, told = 0, was = 0;
#ifdef MUTANT_THIEF_POKES_NOBODY
  bit thief = 0;
#endif
#ifdef UPGRADE
  bit asked = 0;
#endif

start:
  dead[me] = 0;
  {
    ph[me] = IDLE;
idle:
    atomic {
      m = 0; front = 0; undo = 0; at[me] = RESTS
#ifdef UPGRADE
      ; asked = 0
#endif
    };

    /* ---- acquire */
A1:
    atomic {
      if
      :: at[me] == RESTS -> at[me] = BUSY; choose_mode()
#ifdef STEAL
      :: at[me] == RESTS && MAY_STEAL -> at[me] = BUSY; STEALS; why = STEALING; goto enter
#endif
      :: else
      fi;
      if
#ifdef STEAL
#ifdef SPIN
      :: gr && front == SPINS -> front = 0; goto react
      :: gr && front != SPINS -> why = FINISH; goto enter
#else
      :: gr -> why = FINISH; goto enter
#endif
#endif
#ifdef MUTANT_NO_BARRIER
#elif defined(LIVENESS)
      :: !gr && QUEUED && !front && barrier -> why = ENQUEUE; goto enter
#else
      :: !gr && QUEUED && !front -> why = ENQUEUE; goto enter
#endif
#if !defined(LIVENESS) && !defined(NO_OVERTAKING)
      :: !gr && QUEUED && !front
#endif
#ifdef MUTANT_NO_BARRIER
      :: !gr
#elif defined(LIVENESS)
      :: !gr && !(QUEUED && !front && barrier)
#else
      :: !gr && !(QUEUED && !front)
#endif
      fi;
      ph[me] = TRYING; ex[me] = m; old[me] = 0
    };
A4:
    atomic {
      if
      :: old[me] || (!wr && (m == 0 || rd == 0)) -> if :: old[me] :: !old[me] && m == 0 -> rd++ :: !old[me] && m == 1 -> wr = 1 fi
      :: old[me] || wr || (m == 1 && rd > 0) ->
        ph[me] = IDLE; old[me] = 0; ex[me] = 0;
        if
#ifdef SPIN
        :: front == SPINS -> front = 0; goto react
        :: front == 1 -> front = 0; goto to_sleep
#else
        :: front -> front = 0; goto to_sleep
#endif
        :: else -> why = ENQUEUE; goto enter
        fi
      fi
    };
A5:
    atomic {
      if
      :: ph[me] == STALE -> undo = 1; goto R2
      :: else ->
        ph[me] = HELD;
        assert(exclusion || !ANY(BESIDE));
#ifdef STEAL
        if :: ex[me] -> goto A6 :: else fi;
#endif
        m = 0;
        if
        :: front -> front = 0; why = SETTLE; goto enter
#ifdef LATE
        :: front -> front = 0; goto stalled
#endif
        :: else -> goto holding
        fi
      fi
    };
#ifdef STEAL
A6:
    atomic {
      if
      :: ph[me] == STOLEN -> ph[me] = IDLE; goto A1
      :: else ->
        m = 0;
        if
        :: front -> front = 0; why = SETTLE; goto enter
#ifdef LATE
        :: front -> front = 0; goto stalled
#endif
        :: else -> goto holding
        fi
      fi
    };
#endif
#ifdef LATE
stalled:
    granted[me] = 1;
#endif
holding:
#ifdef MEET
    atomic { if :: !ex[me] -> at[me] = STOPPED :: else fi };
#endif
    atomic {
      at[me] = BUSY;
      if
#ifdef MUTANT_STOLEN_RELEASED
      :: ph[me] == HELD || ph[me] == STOLEN -> ph[me] = RELEASING
#else
      :: ph[me] == HELD -> ph[me] = RELEASING /* R1 */
#endif
#ifdef STEAL
      :: ph[me] == STOLEN -> ph[me] = IDLE; goto settled
#endif
#ifdef LATE
      :: granted[me] -> why = SETTLE; goto enter
#endif
#ifdef DOWNGRADE
      :: ex[me] -> why = DOWN; goto enter
#endif
#ifdef UPGRADE
      :: ph[me] == HELD && !ex[me] && !asked -> asked = 1; why = UPGRADING; goto enter
#endif
      fi
    };
    /* ---- release */
#ifdef MUTANT_R3_BEFORE_R2
    atomic { if :: QUEUED && !POKED && !undo -> why = POKE; goto enter :: else fi };
#endif
R2:
    atomic {
      if
      :: old[me]
      :: !old[me] && ex[me] -> wr = 0
      :: !old[me] && !ex[me] -> assert(exclusion || rd > 0); rd--
      fi;
#ifdef MUTANT_UNDO_WITHOUT_R3
      if :: undo -> goto R4 :: else fi;
#endif
#ifdef MUTANT_R3_BEFORE_R2
      if :: !undo -> goto R4 :: else fi;
#endif
    };
#ifdef MUTANT_R4_BEFORE_R3
    d_step { ph[me] = IDLE; old[me] = 0; ex[me] = 0 };
#endif
R3:
#ifdef MUTANT_THIEF_POKES_NOBODY
    atomic { if :: thief -> thief = 0; goto R4 :: else fi };
#endif
    atomic { if :: QUEUED && !POKED -> why = POKE; goto enter :: else fi };
R4:
    atomic {
      ph[me] = IDLE; old[me] = 0; ex[me] = 0;
      if
      :: undo -> undo = 0; goto A1
      :: else
      fi
    };
settled:
#ifdef LATE
    atomic { if :: granted[me] -> why = SETTLE; goto enter :: else fi };
#endif
    goto idle;

    /* ---- wait */
W1:
    atomic {
#ifndef MUTANT_WAKE_READ_LATE
      woken[me] = 0;
#endif
      at[me] = BUSY
    };
#ifdef SPIN
    atomic {
      if
      :: eligible[me] && !skipped[me] -> front = SPINS; goto A1
      :: true
      fi
    };
#endif
react:
    atomic {
      poked[me] = 0;
      if
      :: skipped[me] ->
#ifndef MUTANT_UNSKIP_FORGOTTEN
        why = UNSKIP; goto enter
#endif
      :: else
      fi;
      if
      :: !eligible[me] -> goto to_sleep
      :: else
      fi
    };
W2:
#ifndef MUTANT_POKED_TAKEN_BACK_LATE
    POKED = 0;
#endif
W3:
    atomic { front = 1; goto A1 };
to_sleep:
#ifdef MUTANT_POKED_TAKEN_BACK_LATE
    POKED = 0;
#endif
#ifdef MUTANT_WAKE_READ_LATE
    woken[me] = 0;
#endif
    atomic {
      if
      :: woken[me] -> woken[me] = 0; goto react
      :: else -> at[me] = ASLEEP
      fi
    };
asleep:
    atomic {
      if
#ifdef STOP
      :: at[me] == BUSY -> at[me] = STOPPED; goto W1
#else
      :: at[me] == BUSY -> goto W1
#endif
      :: ANY(GONE) -> why = LOOK; goto enter
#ifdef TICK
      :: POKED -> why = SKIP; goto enter
#endif
#ifdef WITHDRAW
      :: at[me] = BUSY; why = LEAVE; goto enter
#endif
      fi
    };

#ifdef UPGRADE
    /* ---- wait to be upgraded */
up_again:
    atomic { woken[me] = 0; at[me] = BUSY; why = UPGRADING; goto enter };
up_to_sleep:
    atomic {
      if
      :: woken[me] -> goto up_again
      :: else -> at[me] = ASLEEP
      fi
    };
up_asleep:
    atomic {
      if
      :: at[me] == BUSY -> goto up_again /* one that is stopped goes on holding: nobody is to get in */
      :: ANY(GONE) -> why = LOOK; goto enter
#ifdef TICK
      :: POKED -> why = SKIP; goto enter
#endif
#ifdef WITHDRAW
      :: at[me] = BUSY; why = LEAVE; goto enter
#endif
      fi
    };
#endif

    /* ---- under the latch */
enter:
    atomic {
      (latch == NONE || dead[latch]) -> again = latch != NONE; latch = me;
      if
      :: again -> again = 0; rebuilt = 1;
#if defined(UPGRADE) && defined(STEAL)
        /* An upgrade ends with its hold. */
        if :: qn > 0 && up[q[0]] && ph[q[0]] != HELD -> remove(q[0]) :: else fi;
#endif
        POKED = 0; QUEUED = qn > 0
#if defined(STEAL) && ASYNC != 0 && !defined(MUTANT_REBUILD_TELLS_NO_ROBBED)
        ; i = 0; do :: i < NP -> if :: ph[i] == STOLEN && IS_ASYNC(i) -> ring(i) :: else fi; i++ :: else -> break od; i = 0
#endif
#ifdef MUTANT_REBUILD_DROPS_DOORBELL
        ; i = 0; do :: i < NP -> on_bell[i] = 0; i++ :: else -> break od; i = 0
#endif
      :: !again && (why == LOOK || why == STEALING) /* S0 */
      :: else -> goto work
      fi
    };
look:
    atomic {
      if
      :: GONE(0) -> d = 0
      :: GONE(1) -> d = 1
#if NP > 2
      :: GONE(2) -> d = 2
#endif
#if NP > 3
      :: GONE(3) -> d = 3
#endif
      :: else -> goto looked
      fi;
      was = queued[d] || REFERS(d);
      if
      :: REFERS(d) && !old[d] -> if :: ANY(LIVE_WRITER) -> freeze() :: else -> change() fi; OPEN
      :: else
      fi;
      if :: queued[d] -> remove(d) :: else fi;
      ph[d] = FREE; ex[d] = 0; old[d] = 0; on_bell[d] = 0; woken[d] = 0; rung[d] = 0;
      d = NONE;
      front_changed();
#ifdef MUTANT_DEATH_SWALLOWS_POKE
      was = 0;
#endif
      if
      :: was && qn > 0 -> was = 0; back = LOOK; goto poke_again
      :: else -> was = 0; goto look
      fi
    };
looked:
    atomic {
#if defined(STEAL) && !defined(MUTANT_RECOVERING_LEFT)
      /* what a dead thief left */
      if
      :: gr -> if :: ANY(LIVE_WRITER) -> freeze() :: else -> change() fi; OPEN
      :: else
      fi;
#endif
#ifdef MUTANT_REBUILD_NO_POKE
      rebuilt = 0;
#endif
      if
      :: rebuilt && qn > 0 -> rebuilt = 0; back = ENQUEUE; goto poke_again
      :: else -> rebuilt = 0
      fi
    };
work:
    atomic {
      if
      :: why == ENQUEUE ->
        find_front(k);
        eligible[me] = k == NONE;
        if
        :: k != NONE && m == 0 ->
          i = qn;
          do
          :: i > 0 ->
            i--;
            eligible[me] = eligible[q[i]] && !exclusive[q[i]];
            if :: !PASSED_OVER(q[i]) -> break :: else fi
          :: else -> break
          od;
          i = 0;
#ifdef MUTANT_READERS_PASS_WRITER
          eligible[me] = 1;
#endif
        :: else
        fi;
        if :: k == NONE -> front_changed() :: else fi;
        k = 0;
        q[qn] = me; qn++;
        queued[me] = 1; exclusive[me] = m; poked[me] = 0; skipped[me] = 0
      :: why == SETTLE ->
        remove(me); front_changed();
        if :: qn == 0 -> goto leave :: else -> goto settle fi
      :: why == LEAVE ->
        find_front(k);
#ifdef MUTANT_WITHDRAW_ELIGIBLE_ALONE
        was = eligible[me];
#else
        was = eligible[me] || k == me;
#endif
        k = 0;
        remove(me);
#ifdef MUTANT_WITHDRAW_SWALLOWS_POKE
        was = 0;
#endif
        if :: was && qn > 0 -> was = 0; front_changed(); goto pass_on :: else -> was = 0; goto leave fi
      :: why == UNSKIP ->
        skipped[me] = 0;
#ifndef MUTANT_UNSKIP_KEEPS_POKED
        poked[me] = 0;
#endif
        front_changed();
#ifdef MUTANT_UNSKIP_POKES_NOBODY
        goto leave
#else
        back = LEAVE; goto poke_front
#endif
      :: why == SKIP -> if :: POKED -> goto overdue :: else -> goto leave fi
      :: why == POKE -> if :: QUEUED && !POKED -> back = POKE; goto poke_front :: else -> goto leave fi
      :: why == DOWN ->
        if :: ph[me] == HELD -> ex[me] = 0; change() :: else -> goto leave fi;
        if :: qn > 0 -> back = LEAVE; goto poke_front :: else -> goto leave fi
#ifdef STEAL
      :: why == STEALING -> goto S1
#endif
#ifdef UPGRADE
      :: why == UPGRADING && ph[me] != HELD -> if :: up[me] -> end_upgrade(me) :: else fi; goto leave
      :: why == UPGRADING && ph[me] == HELD && up[me] ->
        poked[me] = 0;
        if :: skipped[me] -> skipped[me] = 0; demote(); front_changed() :: else fi;
        goto U_W2
      :: why == UPGRADING && ph[me] == HELD && !up[me] ->
        if
#ifndef MUTANT_UPGRADE_SECOND
        :: ANY(IS_UP) -> goto leave
#endif
        :: else -> if :: !ANY(HOLDS_AS_WELL) -> take_alone(); goto upgraded :: else fi
        fi;
        i = qn;
        do :: i > 0 -> q[i] = q[i - 1]; i-- :: else -> break od;
        q[0] = me; qn++;
        queued[me] = 1; exclusive[me] = 1; eligible[me] = 1; up[me] = 1; woken[me] = 0;
        demote();
        front_changed(); goto U_queued
#endif
      :: why == LOOK || why == FINISH -> goto leave
      fi
    };
    QUEUED = 1; /* W2 */
#ifdef UPGRADE
    goto leave;
U_queued:
    QUEUED = 1;
U_W2:
#ifndef MUTANT_UPGRADE_KEEPS_POKED
    POKED = 0; /* W2 */
#endif
    atomic {
      if
      :: ANY(HOLDS_AS_WELL) -> goto leave /* U2 */
      :: ANY(HOLDS_AS_WELL) -> freeze(); goto leave /* U5 */
      :: else -> take_alone()
      fi
    };
upgraded:
    atomic { if :: up[me] -> end_upgrade(me) :: else fi };
#endif
leave:
    atomic {
      latch = NONE;
      if
      :: why == ENQUEUE ->
        why = 0;
#ifdef MUTANT_NO_SECOND_LOOK
        goto to_sleep
#endif
        if
        :: !eligible[me] -> woken[me] = 0; goto to_sleep
        :: else -> if :: !IS_ASYNC(me) -> goto W1 :: else -> goto react fi
        fi
      :: why == SETTLE && ph[me] == IDLE -> why = 0; goto idle
      :: (why == SETTLE && ph[me] != IDLE) || why == DOWN || why == STEALING -> why = 0; goto holding
      :: why == FINISH -> why = 0; goto A1
#ifdef UPGRADE
      :: why == UPGRADING -> why = 0; if :: up[me] -> goto up_to_sleep :: else -> goto holding fi
      :: why == LEAVE && ph[me] != IDLE -> why = 0; goto holding
      :: (why == SKIP || why == LOOK) && ph[me] != IDLE -> why = 0; goto up_asleep
#endif
      :: why == LEAVE && ph[me] == IDLE -> why = 0; goto idle
      :: why == UNSKIP -> why = 0; goto react
#ifdef UPGRADE
      :: (why == SKIP || why == LOOK) && ph[me] == IDLE -> why = 0; goto asleep
#else
      :: why == SKIP || why == LOOK -> why = 0; goto asleep
#endif
      :: why == POKE -> why = 0
      fi
    };
    /* the wakes that waited until the latch was free */
    do
    :: atomic { later & 1 -> later = later & ~1; wake(0) }
    :: atomic { later & 2 -> later = later & ~2; wake(1) }
    :: atomic { later & 4 -> later = later & ~4; wake(2) }
    :: atomic { later & 8 -> later = later & ~8; wake(3) }
    :: later == 0 -> break
    od;
#ifdef MUTANT_R3_BEFORE_R2
    if :: atomic { ph[me] == RELEASING && !undo -> goto R2 } :: else fi;
#endif
    goto R4;

#ifdef STEAL
S1:
#ifndef MUTANT_STEAL_NO_RECOVERING
    gr = 1;
#endif
S2:
#ifndef MUTANT_STEAL_NO_FREEZE
    atomic { freeze() };
#endif
S3:
    atomic {
      do
      :: k < NP && ph[k] != HELD -> k++
      :: else -> break
      od;
      if
      :: k < NP ->
        ph[k] = STOLEN; ex[k] = 0; old[k] = 0;
#ifdef UPGRADE
        if :: up[k] -> end_upgrade(k); woken[k] = 1; if :: at[k] == ASLEEP -> at[k] = BUSY :: else fi :: else fi;
#endif
#if ASYNC != 0
        informed[k] = 0;
        if :: IS_ASYNC(k) -> todo = todo | (1 << k) :: else fi;
#endif
        k++; goto S3
      :: else -> k = 0
      fi
    };
#ifdef MUTANT_S4_STORE
    was = POKED;
#endif
    d_step { ph[me] = TRYING; ex[me] = 1; old[me] = 1 };
S4:
    d_step {
      i = 0;
      do
      :: i < NP -> if :: REFERS(i) -> old[i] = 1 :: else fi; i++
      :: else -> break
      od;
      i = 0;
      old[me] = 0;
      rd = 0;
      wr = 1;
#ifdef MUTANT_S4_STORE
      POKED = was;
      was = 0;
#endif
#ifdef MUTANT_S4_DROPS_FLAGS
      QUEUED = 0;
      POKED = 0;
#endif
      OPEN
    };
S5:
    atomic {
      ph[me] = HELD;
      assert(exclusion || !ANY(BESIDE));
#ifdef MUTANT_THIEF_POKES_NOBODY
      thief = 1;
#endif
#if ASYNC == 0
      goto leave
#endif
    };
#if ASYNC != 0
    do
    :: atomic { todo & 1 -> todo = todo & ~1; ring(0) }
    :: atomic { todo & 2 -> todo = todo & ~2; ring(1) }
    :: atomic { todo & 4 -> todo = todo & ~4; ring(2) }
    :: atomic { todo & 8 -> todo = todo & ~8; ring(3) }
    :: todo == 0 -> goto leave
    od;
#endif
#endif

    /* settle_grant(), after the slot was removed */
settle:
#ifndef MUTANT_GRANT_LEAVES_POKED
    POKED = 0;
#endif
    atomic {
      find_front(k);
      if :: k == NONE -> k = 0; goto leave :: else fi;
      told = exclusive[k] || eligible[k];
      was = !ex[me] && !exclusive[k]; /* it fits in beside us */
#if (defined(STEAL) || defined(LATE)) && !defined(MUTANT_ROBBED_SETTLES_NOTHING) && !defined(MUTANT_LATE_SETTLES_NOTHING)
      if :: ph[me] != HELD -> was = 0; told = 0; k = 0; back = LEAVE; goto poke_front :: else fi;
#endif
#ifdef MUTANT_GRANT_POKES_NO_READERS
      was = 0;
#endif
      if
      :: was && !told -> was = 0; k = 0; back = LEAVE; goto poke_front
#ifndef MUTANT_KEEP_POKED_SWALLOWS
      :: was && told && !poked[k] -> was = 0; told = 0; again = 0; todo = 1 << k; d = k; k = 0; back = SETTLE; goto poke
#endif
      :: else -> was = 0; if :: told -> told = 0; d = k; k = 0 :: else -> k = 0; goto leave fi
      fi
    };
keep_poked:
    atomic {
      k = d;
      d = NONE;
#if !defined(MUTANT_KEEP_POKED_UNCHECKED) && !defined(MUTANT_KEEP_POKED_SWALLOWS)
      if :: !poked[k] -> k = 0; goto leave :: else fi
#endif
    };
    POKED = 1;
    atomic {
#ifdef MUTANT_KEEP_POKED_UNCHECKED
      k = 0; goto leave
#else
      if
      :: poked[k] -> k = 0; goto leave
      :: else -> k = 0
      fi
#endif
    };
#ifdef MUTANT_KEEP_POKED_SWALLOWS
    POKED = 0;
    goto leave;
#endif
    atomic { back = LEAVE; goto poke_front };

    /* pass_on(), after the slot was removed */
pass_on:
    atomic { was = POKED };
    atomic {
      find_front(k);
      told = k != NONE && eligible[k] && !exclusive[k];
      back = LEAVE;
#ifdef MUTANT_PASS_ON_TO_NOBODY
      was = 1;
#endif
      if
#if defined(MUTANT_PASS_ON_UNCHECKED)
      :: told && was -> was = 0; told = 0; back = 0; k = 0; goto leave
      :: told && !was -> was = 0; told = 0; todo = 1 << k; k = 0
#elif defined(MUTANT_PASS_ON_TO_NOBODY)
      :: told -> was = 0; told = 0; back = 0; k = 0; goto leave
#else
      :: told && was && poked[k] -> was = 0; told = 0; back = 0; k = 0; goto leave
      :: told && !(was && poked[k]) -> was = 0; told = 0; todo = 1 << k; k = 0
#endif
      :: else -> was = 0; told = 0; k = 0; goto poke_front
      fi
    };
    atomic { POKED = 1; again = 0; goto poke };

    /* open_barrier_if_overdue(): k is a place in the queue */
overdue:
    atomic {
#ifdef MUTANT_SKIP_UNCHECKED
      was = poked[q[k]]
    };
    atomic {
      if :: was -> skipped[q[k]] = 1 :: else fi;
      was = 0;
#else
      if :: poked[q[k]] -> skipped[q[k]] = 1; was = MATE(q[k]) :: else fi;
#endif
#ifdef PAIR
      if
#ifdef MUTANT_MATE_NOT_POKED
      :: was -> was = 0; skipped[1 - q[k]] = 1
#else
      :: was -> was = 0; d = k; todo = 1 << (1 - q[k]); passing = 1; back = SKIP; goto poke
#endif
      :: else
      fi
    };
passed:
    atomic {
#endif
      if
      :: eligible[q[k]] && k + 1 < qn -> k++; goto overdue
      :: else -> k = 0; back = LEAVE; front_changed()
      fi;
#ifdef MUTANT_SKIP_POKES_NOBODY
      back = 0;
      goto leave
#else
      goto poke_front
#endif
    };

poke_again:
    atomic {
      i = 0;
      do
      :: i < qn -> if :: poked[q[i]] -> todo = todo | (1 << q[i]) :: else fi; i++
      :: else -> break
      od;
      i = 0;
#if defined(MUTANT_RING_NOT_REPEATED) || defined(MUTANT_REBUILD_DROPS_DOORBELL)
      todo = 0;
#endif
      again = todo != 0;
      if :: again -> goto poke :: else fi
    };
poke_front:
    atomic {
      POKED = 1;
      again = 0;
      todo = 0;
      i = 0;
      j = NONE;
      do
      :: i < qn ->
        if
        :: PASSED_OVER(q[i])
        :: !PASSED_OVER(q[i]) && (j == NONE || (!exclusive[j] && !exclusive[q[i]])) ->
          j = q[i];
          todo = todo | (1 << j);
          if :: exclusive[j] -> break :: else fi
        :: else -> break
        fi;
        i++
      :: else -> break
      od;
      i = 0;
      j = 0;
      if :: todo != 0 -> goto poke :: else fi
    };
    POKED = 0;
    goto poked_all;
poke:
    atomic {
      k = 0;
      do
      :: (todo & (1 << k)) == 0 -> k++
      :: else -> break
      od;
      todo = todo & ~(1 << k);
      if :: PASSING -> skipped[k] = 1 :: else -> eligible[k] = 1 fi;
      poked[k] = 1
    };
    atomic {
      if
      :: !IS_ASYNC(k) -> woken[k] = 1
#ifdef MUTANT_RING_NOT_REPEATED
      :: IS_ASYNC(k) && on_bell[k] -> goto rang
#endif
      :: else -> on_bell[k] = 1; rung[k] = 1
      fi
    };
    atomic {
      if
      :: back == POKE -> later = later | (1 << k)
      :: else -> wake(k)
      fi
    };
rang:
    atomic {
      k = 0;
      if
      :: todo != 0 -> goto poke
      :: todo == 0 && again -> again = 0; goto poke_front
      :: else
      fi
    };
poked_all:
    atomic {
      if
      :: back == LOOK -> back = 0; goto look
      :: back == ENQUEUE -> back = 0; goto work
      :: back == SETTLE -> back = 0; goto keep_poked
#ifdef PAIR
      :: back == SKIP -> back = 0; passing = 0; k = d; d = NONE; goto passed
#endif
      :: else -> back = 0; goto leave
      fi
    }
  } unless { dead[me] };

  d_step { k = 0; d = NONE; why = 0; todo = 0; later = 0; back = 0; i = 0; j = 0; m = 0; front = 0; undo = 0;
    rebuilt = 0; again = 0; told = 0; was = 0;
#ifdef UPGRADE
    asked = 0;
#endif
#ifdef PAIR
    passing = 0
#endif
  };
end:
  ph[me] == FREE && latch != me;
  goto start
}

#if ASYNC != 0
/* The doorbell thread of a process. */
proctype Bell(byte me) {
start:
  {
    do
    :: atomic { rung[me] = 0; bell_asleep[me] = 0 };
       atomic {
         latch == NONE ->
         if
         :: on_bell[me] ->
           on_bell[me] = 0; woken[me] = 1;
#ifdef STEAL
           informed[me] = 1;
#endif
           if :: at[me] == ASLEEP -> at[me] = BUSY :: else fi
         :: else
         fi
       };
       atomic { if :: rung[me] :: else -> bell_asleep[me] = 1 fi };
end:   bell_asleep[me] == 0
    od
  } unless { dead[me] };
end1:
  !dead[me];
  goto start
}
#endif

#if KILLS > 0
#define KILL(i) \
  :: atomic { kills < KILLS && ph[i] != FREE && !dead[i] -> kills++; dead[i] = 1; at[i] = BUSY; bell_asleep[i] = 0 }
active proctype Killer() {
end:
  do
#ifndef PAIR
  KILL(0)
  KILL(1)
#endif
#if NP > 2
  KILL(2)
#endif
#if NP > 3
  KILL(3)
#endif
  od
}
#endif

#ifdef LIVENESS
active proctype Clock() {
end:
  do
  :: QUEUED && !barrier -> barrier = 1
  od
}
#ifdef UPGRADE
/* An upgrade is granted, or refused, whatever stream of readers and writers comes. */
ltl upgraded { [] ((up[0]) -> <> (!up[0] || dead[0])) }
#else
ltl served { [] ((queued[0]) -> <> (!queued[0] || dead[0])) }
#endif
#else
active proctype Watch() {
end:
#if defined(STEAL) && ASYNC != 0
  atomic { LOST || UNTOLD -> assert(progress || !LOST); assert(telling || !UNTOLD) }
#else
  atomic { LOST -> assert(progress || !LOST) }
#endif
}
#endif

init {
  byte i = 0;
  atomic {
    do
    :: i < NP ->
      run P(i);
#if ASYNC != 0
      if :: IS_ASYNC(i) -> run Bell(i) :: else fi;
#endif
      i++
    :: else -> break
    od;
    i = 0
  }
}
