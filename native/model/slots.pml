/* The slot protocol of protocol.h and recovery.h: acquire, release, recovery, downgrade, upgrade, steal, over one lock.
 *
 * NP processes with one slot each acquire (shared, exclusive), steal, release, downgrade, upgrade, and clear or record the
 * abandoned mark, for ever: there is no bound on the number of operations. A process may be killed between any two
 * steps, KILLS times in all, and is started anew once somebody has recovered it. Or it just does not go on, which is
 * what a model of interleavings means by a straggler.
 *
 * Labels are the step names of protocol.h; a step is one access to shared memory. Steps are merged where no other
 * process could tell them apart: a failed A3 or A4 with the IDLE that follows (until then the slot is as before it);
 * the choice of a storage with its initialisation; slots that a loop passes over because they do not hold (after V2
 * none comes to hold) with the next one that does.
 *
 * Abstracted, and why that is sound:
 *   rwlock      a count and a bit, tried and unlocked atomically. A process killed inside leaves the state before or
 *               the one after. That a real one may be left blocked instead changes nothing: V3 never believes a
 *               storage to which a dead slot refers.
 *   liveness    dead[] is what the kernel knows, known[] what a recovery has written down (kDead). Others that have
 *               died since count as live, as in the code.
 *   storages    one that no slot names is free (names.pml has the pool and its lists), and the smallest is taken, so
 *               that it is in use again as soon as it can be; the content of one that nobody may use is forgotten.
 *               They are interchangeable, so V5 exchanges the names of the old and the new one instead of the gate's
 *               content: the gate's storage is always 0, and whoever knew it as 0 knows it by its new name.
 *   tokens      only their order matters: they are kept relative to the greatest one granted (2), gaps closed up.
 *   a wait      a process that finds the lock held goes back to the start, and may choose anything: queue.pml is about
 *               waiting. "Progress" here: when no slot refers to the gate's storage, that is free, and nobody is left
 *               RECOVERING unless its latch's owner died. What nobody wedges, everybody gets.
 *   kStalled    an operation that says so has done nothing: here it blocks on the latch instead.
 *
 * LEAVES: threads end, and leave their slots to a recovery. A slot is LEFT from then on, and a recovery by anybody, the
 * own process included, takes it for a dead one's: it counts as nobody's in V3, its exclusive hold leaves the abandoned
 * mark (V4), and it is freed afterwards.
 *    E1  a thread that ends, without the latch: one CAS of its slot, again if it fails. It makes
 *        LEFT(exclusive, g)         of HELD(exclusive, g);
 *        LEFT(shared, g)            of RELEASING(m, g) and STALE(m, g), which are unlocked already and owe R3. A shared
 *                                   hold is released before that;
 *        LEFT without a storage     of STOLEN and IDLE: nothing but the slot is left.
 * Only the owner of the latch changes a LEFT slot. After V5 it takes the storage from those that do not refer to the
 * new one. One that does was left since V5, by a thread that got the lock after it: that is another recovery's. No mark
 * is written here for a LEFT slot that a thief finds after S0. The code writes one: whether the thread ended first or was
 * robbed first nobody can tell, and a mark too many does no harm.
 *
 * Switches: NP, KILLS, NO_SHARED, DOWNGRADE, UPGRADE, STEAL, LEAVES, MARKS (holders clear the mark, or record one),
 * POKES (a releaser enters the latch in R3 at any time, not only where its owner has died); MUTANT_x, see
 * mutants.json.
 */
#ifndef NP
#define NP 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define NS (NP + 1)
#define NONE 15

#define FREE 0
#define IDLE 1
#define TRYING 2
#define HELD 3
#define RELEASING 4
#define STALE 5
#define LEFT 6
#define STOLEN 7
#define EMPTY 8 /* LEFT that refers to nothing */

/* what the latch was entered for */
#define LOOK 1
#define FINISH 2
#define POKE 3
#define DOWN 4
#define STEALING 5
#define CLEAR 6
#define RECORD 7
#define UP 8

/* the slot words: phase, mode, storage. Written in one step each. */
byte ph[NP];
bit ex[NP];
byte st[NP];
byte seen[NP];  /* A1's g, until A2 */
bit gr = 0;     /* the gate says RECOVERING */
byte rd[NS];    /* the rwlocks */
bit wr[NS];

byte latch = NONE;
bit dead[NP];
bit known[NP];
bit mark = 0;   /* abandoned */
byte token = 2;
byte mine[NP];  /* the token of a grant under way; 1: one smaller than the greatest granted, 0: none */

/* What the checker knows. */
byte touch[NP];      /* the storage whose rwlock the process is going to touch */
byte torn[NP];       /* died holding exclusively, which is not recorded yet; 2: while somebody was stealing it */
bit owed = 0;        /* what `mark` has to be */
byte fresh = NONE;   /* taken, and not in the gate yet */
#ifdef LEAVES
bit ended[NP];       /* the thread of the slot */
#endif
bit stealing = 0;    /* S0 is over: who dies now may be robbed instead of recovered */
byte kills = 0;

/* Named in assertions, so that a violation says what it violates. */
#ifdef BREADTH_FIRST
#define exclusion 0
#define storage 0
#define tokens 0
#define abandoned 0
#define progress 0
#else
hidden byte exclusion, storage, tokens, abandoned, progress;
#endif

#if NP == 2
#define ANY(p) (p(0) || p(1))
#elif NP == 3
#define ANY(p) (p(0) || p(1) || p(2))
#else
#define ANY(p) (p(0) || p(1) || p(2) || p(3))
#endif
#define REFERS(i) (ph[i] >= TRYING && ph[i] <= LEFT)
#define REFERS_TO_0(i) (REFERS(i) && st[i] == 0)
#define IS_V(i) (mine[i] == v)
#define IS_S(i) (REFERS(i) && st[i] == s)
#define GONE(i) ((dead[i] && ph[i] != FREE) || ph[i] == LEFT || ph[i] == EMPTY)
#ifdef LEAVES
/* A slot whose thread has ended is one that a recovery is going to find. */
#define LEAKED(i) (ended[i] && ph[i] != LEFT && ph[i] != EMPTY && ph[i] != FREE && !dead[i])
#else
#define LEAKED(i) 0
#endif
#define HOLDS_AS_WELL(i) (i != me && ph[i] == HELD)
#define BESIDE(i) (i != me && !dead[i] && ph[i] == HELD && (ex[me] || ex[i]))
#define TORN(i) (torn[i] != 0)
#define TOUCHES(i) (!dead[i] && touch[i] == n)
#ifdef MUTANT_STALE_NOT_REFERRING
#define HINDERS(i) (REFERS(i) && ph[i] != STALE && st[i] == n)
#elif defined(MUTANT_STORAGE_REUSED)
#define HINDERS(i) 0
#else
#define HINDERS(i) (REFERS(i) && st[i] == n)
#endif

#define CAN(s, mode) (!wr[s] && ((mode) == 0 || rd[s] == 0))
#define LOCK(s, mode) if :: (mode) == 0 -> rd[s]++ :: else -> wr[s] = 1 fi
#define UNLOCK(s, mode) \
  if :: (mode) == 0 -> assert(storage || rd[s] > 0); rd[s]-- \
     :: else -> assert(storage || wr[s]); wr[s] = 0 fi
#define SET(i, phase, mode, s) ph[i] = phase; ex[i] = mode; st[i] = s

inline check_held() { assert(exclusion || !ANY(BESIDE)) }
inline check_mark() { assert(abandoned || (mark == owed && !ANY(TORN))) }
inline check_progress() {
  assert(progress || latch != NONE || (!gr && (ANY(REFERS_TO_0) || (rd[0] == 0 && !wr[0]))));
  assert(progress || !ANY(LEAKED))
}

/* Nobody may use it any more, so what it contains does not matter. */
inline tidy(s) {
  if
  :: s != 0 && s != fresh && !ANY(IS_S) -> rd[s] = 0; wr[s] = 0
  :: else
  fi
}
inline set_idle(i, s) { SET(i, IDLE, 0, 0); tidy(s); check_progress() }

inline close_gaps() {
  v = 3;
  do
  :: v < token && ANY(IS_V) -> v++
  :: v < token && !ANY(IS_V) ->
    token--;
    j = 0;
    do :: j < NP -> if :: mine[j] > v -> mine[j]-- :: else fi; j++ :: else -> break od
  :: else -> break
  od;
  v = 0;
  j = 0
}
/* We report mine[me]: it has to be greater than all before. */
inline grant_token() {
  assert(tokens || (mine[me] > 2 && token >= mine[me]));
  v = mine[me] - 2;
  token = token - v;
  mine[me] = 0;
  j = 0;
  do
  :: j < NP -> if :: mine[j] == 0 :: mine[j] > v -> mine[j] = mine[j] - v :: else -> mine[j] = 1 fi; j++
  :: else -> break
  od;
  close_gaps()
}

inline take_storage() {
  n = 1;
  do
  :: ANY(HINDERS) -> n++; assert(n < NS)
  :: else -> break
  od;
  assert(storage || !ANY(TOUCHES)); /* INV-3 */
  rd[n] = 0;
  wr[n] = 0;
  fresh = n
}

#define RENAME(x) if :: x == 0 -> x = n :: x == n -> x = 0 :: else fi
/* V5: the gate names n, and no recovery. */
inline set_gate() {
  j = 0;
  do
  :: j < NP ->
    if :: REFERS(j) -> RENAME(st[j]) :: else fi;
    RENAME(seen[j]);
    RENAME(touch[j]);
    j++
  :: else -> break
  od;
  v = rd[0]; rd[0] = rd[n]; rd[n] = v;
  v = wr[0]; wr[0] = wr[n]; wr[n] = v;
  j = 0;
  v = 0;
  fresh = NONE;
  gr = 0
}

proctype P(byte me) {
  byte m = 0, k = 0, n = 0, d = 0, why = 0, back = 0, v = 0, j = 0;
  byte writer = NONE;
  bit live_writer = 0, rebuilt = 0;

start:
#ifdef LEAVES
  ended[me] = 0;
#endif
  dead[me] = 0;
  {
    ph[me] = IDLE;
idle:
A1:
    atomic {
      if
      :: gr -> why = FINISH; goto enter
#ifndef NO_SHARED
      :: !gr -> m = 0
#endif
      :: !gr -> m = 1
#ifdef STEAL
      :: why = STEALING; goto enter
#endif
      :: ANY(GONE) -> why = LOOK; goto enter
      fi;
      seen[me] = 0
    };
A2:
    d_step { SET(me, TRYING, m, seen[me]); seen[me] = NONE; m = 0 };
A3:
    atomic {
      if
#ifndef MUTANT_A3_SKIPPED
      :: gr || st[me] != 0 -> n = st[me]; set_idle(me, n); n = 0; goto idle
#endif
      :: else -> touch[me] = st[me]
      fi
    };
A4:
    atomic {
      if
      :: CAN(st[me], ex[me]) -> LOCK(st[me], ex[me])
      :: else -> touch[me] = NONE; n = st[me]; set_idle(me, n); n = 0; goto idle
      fi
    };
A5:
    atomic {
      if
#ifndef MUTANT_A5_STORE
      :: ph[me] != TRYING -> goto undo
#endif
      :: else ->
        ph[me] = HELD;
        check_held();
        check_mark();
        if :: ex[me] == 0 -> goto holding :: else fi
      fi
    };
#ifdef MUTANT_TOKEN_STORE
    mine[me] = token;
    atomic { mine[me]++; token = mine[me]; assert(tokens || token >= 2); close_gaps() };
#else
    atomic { token++; mine[me] = token; close_gaps() };
#endif
A6:
    atomic {
      if
#ifndef MUTANT_A6_SKIPPED
      :: ph[me] == STOLEN -> mine[me] = 0; close_gaps(); goto stolen
#endif
      :: else -> grant_token()
      fi
    };
    goto holding;
undo:
    atomic {
#ifndef MUTANT_STALE_NOT_UNDONE
      UNLOCK(st[me], ex[me]);
#endif
      touch[me] = NONE;
      goto R3
    };

holding:
#ifdef MUTANT_R1_STORE
    m = st[me];
#endif
    atomic {
      if
      :: ph[me] == STOLEN -> goto stolen
#ifdef MUTANT_R1_STORE
      :: ph[me] == HELD -> ph[me] = RELEASING; st[me] = m; m = 0 /* R1 */
#else
      :: ph[me] == HELD -> ph[me] = RELEASING /* R1 */
#endif
#ifdef LEAVES
#ifndef MUTANT_LEFT_STORE
      :: ex[me] && ph[me] == HELD -> torn[me] = 1 + stealing; touch[me] = NONE; ph[me] = LEFT; ended[me] = 1; goto left /* E1 */
#else
      :: ex[me] && ph[me] == HELD -> m = st[me]; goto E1
#endif
#endif
#ifdef DOWNGRADE
      :: ex[me] -> why = DOWN; goto enter
#endif
#ifdef UPGRADE
      :: !ex[me] -> why = UP; goto enter
#endif
#ifdef MARKS
      :: ex[me] && mark -> why = CLEAR; goto enter
      :: ex[me] && !mark -> why = RECORD; goto enter
#endif
      fi
    };
#ifdef MUTANT_LEFT_STORE
    goto R2;
E1:
    atomic {
      if :: ph[me] == HELD -> torn[me] = 1 + stealing :: else fi;
      SET(me, LEFT, 1, m); touch[me] = NONE; m = 0; ended[me] = 1; goto left
    };
#endif
#ifdef MUTANT_R4_BEFORE_R2
    d_step { m = ex[me]; n = st[me]; SET(me, IDLE, 0, 0) };
    atomic { UNLOCK(n, m); touch[me] = NONE; m = 0; n = 0; goto idle };
#endif
R2:
    atomic { UNLOCK(st[me], ex[me]); touch[me] = NONE };
R3:
    /* Whoever enters the latch here may find its owner dead. The pokes are in queue.pml. */
    atomic {
      if
#ifdef POKES
      :: why = POKE; goto enter
#else
      :: latch != NONE && dead[latch] -> why = POKE; goto enter
#endif
      :: true
#ifdef LEAVES
      :: true ->
#ifndef MUTANT_LEFT_KEEPS_MODE
        ex[me] = 0;
#endif
        ph[me] = LEFT; ended[me] = 1; goto left /* E1 */
#endif
      fi
    };
R4:
    atomic { n = st[me]; set_idle(me, n); n = 0; goto idle };
stolen:
#ifdef MUTANT_STOLEN_UNLOCKED
    atomic { if :: touch[me] != NONE -> UNLOCK(touch[me], ex[me]); touch[me] = NONE :: else fi };
#endif
    atomic {
#ifdef LEAVES
      if :: SET(me, EMPTY, 0, 0); ended[me] = 1; goto left :: true fi;
#endif
      SET(me, IDLE, 0, 0); goto idle
    };

    /* ---- under the latch */
enter:
    atomic {
      (latch == NONE || dead[latch]) -> rebuilt = latch != NONE; latch = me; fresh = NONE; stealing = 0;
      if
#ifdef MUTANT_STEAL_NO_LOOK
      :: rebuilt || why == LOOK
#else
      :: rebuilt || why == LOOK || why == STEALING
#endif
      :: else -> goto looked
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
      :: else -> stealing = (why == STEALING); goto looked
      fi;
      known[d] = dead[d];
      if
      :: REFERS_TO_0(d) ->
#ifdef MUTANT_DEAD_FREED_FIRST
        SET(d, IDLE, 0, 0);
#endif
        back = LOOK; goto V1
      :: else
      fi
    };
forget:
    atomic {
      assert(abandoned || torn[d] == 0);
      n = st[d]; SET(d, FREE, 0, 0); known[d] = 0; mine[d] = 0; close_gaps(); tidy(n); n = 0; d = 0; goto look
    };
looked:
    atomic {
      if
      :: gr && (rebuilt || why == FINISH || why == STEALING || why == UP) -> back = FINISH; goto V1
      :: else
      fi;
settled:
      rebuilt = 0; back = 0;
      if
      :: why == DOWN && ph[me] == HELD -> back = DOWN; goto V1
      :: why == STEALING -> back = STEALING; goto V1
      :: why == UP && ph[me] == HELD && !ANY(HOLDS_AS_WELL) -> back = UP; goto V1 /* U2, U3 */
#ifdef MUTANT_CLEAR_UNCHECKED
      :: why == CLEAR -> mark = 0; if :: ph[me] == HELD -> owed = 0 :: else fi
#else
      :: why == CLEAR && ph[me] == HELD -> mark = 0; owed = 0
#endif
      :: why == RECORD && ph[me] == HELD -> mark = 1; owed = 1
      :: else
      fi;
    };
leave:
    atomic {
      latch = NONE; check_progress();
      if
      :: why == FINISH || why == LOOK -> why = 0; goto idle
      :: why == POKE -> why = 0; goto R4
      :: else -> why = 0; goto holding
      fi
    };

    /* V1 to V5 of a recovery, and of a downgrade, and S1 to S4 */
V1:
#ifdef MUTANT_DOWNGRADE_V5_FIRST
    atomic { if :: back == DOWN -> take_storage(); rd[n] = 1; set_gate(); goto V2 :: else fi };
#endif
#ifdef MUTANT_V1_AFTER_V2
    skip;
#else
    gr = 1;
#endif
V2:
    atomic {
#ifdef MUTANT_V2_SKIPPED
      if :: back == LOOK || back == FINISH -> k = NP :: else fi;
#endif
#ifdef MUTANT_STEAL_NO_FREEZE
      if :: back == STEALING -> k = NP :: else fi;
#endif
#ifdef MUTANT_UPGRADE_NO_FREEZE
      if :: back == UP -> k = NP :: else fi;
#endif
      if :: k == me -> k++ :: else fi;
      if
      :: k < NP -> if :: ph[k] == TRYING && st[k] == 0 && !known[k] -> ph[k] = STALE :: else fi; k++
      :: else
      fi;
      if
      :: k < NP && !(k == me && k == NP - 1) -> goto V2
      :: else -> k = 0
      fi
    };
#ifdef MUTANT_V1_AFTER_V2
    gr = 1;
#endif
V3:
    atomic {
      if
      :: back == DOWN -> goto downgrade
      :: back == STEALING -> goto steal
      :: back == UP -> goto upgrade
      :: else
      fi;
      do
      :: k < NP ->
        if
        :: ph[k] == HELD && ex[k] && !known[k] -> live_writer = 1
        :: ph[k] == HELD && ex[k] && known[k] && st[k] == 0 -> writer = k
#ifdef MUTANT_LEFT_IS_LIVE
        :: ph[k] == LEFT && ex[k] && st[k] == 0 -> live_writer = 1
#else
        :: ph[k] == LEFT && ex[k] && st[k] == 0 -> writer = k
#endif
#ifdef MUTANT_MARK_ANY_DEAD
        :: known[k] && ex[k] && ph[k] != HELD && ph[k] != LEFT && REFERS_TO_0(k) -> writer = k
#endif
        :: else
        fi;
        k++
      :: else -> break
      od;
      k = 0;
#ifdef MUTANT_V3_IGNORES_WRITER
      live_writer = 0;
#endif
      if
      :: live_writer -> goto V4
      :: else -> take_storage()
      fi
    };
#ifdef MUTANT_V5_BEFORE_V3
    d_step { set_gate() };
#define TARGET 0
#else
#define TARGET n
#endif
#ifndef MUTANT_V3_NOT_CARRIED
carry:
    atomic {
      do
      :: k < NP && !(ph[k] == HELD && !ex[k] && !known[k]) -> k++
      :: else -> break
      od;
      if
      :: k == NP -> k = 0; goto V4
      :: else ->
        m = st[k];
#ifndef MUTANT_V3_CAS_FIRST
        rd[TARGET]++
#endif
      fi
    };
    atomic {
      if
      :: ph[k] == HELD && !ex[k] && st[k] == m ->
        st[k] = TARGET; m = 0;
        if :: !dead[k] -> touch[k] = TARGET :: else fi;
        tidy(m)
#if defined(MUTANT_V3_NO_GIVE_BACK)
      :: else
#elif defined(MUTANT_V3_CAS_FIRST)
      :: else -> m = NONE
#else
      :: else -> UNLOCK(TARGET, 0)
#endif
      fi;
#ifndef MUTANT_V3_CAS_FIRST
      m = 0; k++; goto carry
#endif
    };
#ifdef MUTANT_V3_CAS_FIRST
    atomic { if :: m != NONE -> rd[n]++ :: else fi; m = 0; k++; goto carry };
#endif
#endif
V4:
#ifndef MUTANT_MARK_AFTER_V5
    atomic {
      if
      :: writer != NONE ->
        assert(abandoned || torn[writer] != 0 || owed); /* again, after a death at V5 */
        mark = 1; owed = 1; torn[writer] = 0; writer = NONE
      :: else -> goto V5
      fi
    };
#endif
V5:
    atomic {
#ifndef MUTANT_V5_BEFORE_V3
      if :: live_writer -> gr = 0 :: else -> set_gate() fi;
#endif
#ifdef MUTANT_MARK_AFTER_V5
    };
    atomic { if :: writer != NONE -> mark = 1; owed = 1; torn[writer] = 0; writer = NONE :: else fi;
#endif
      if
      :: live_writer -> live_writer = 0; goto recovered
      :: else
      fi
    };
    /* what the dead referred to is nobody's */
    d_step {
      do
      :: k < NP ->
        if
        :: known[k] -> SET(k, IDLE, 0, 0)
        /* One that refers to the new storage was left since V5. */
#if defined(MUTANT_LEFT_TO_IDLE)
        :: ph[k] == LEFT && !known[k] && st[k] != 0 -> SET(k, IDLE, 0, 0)
#elif defined(MUTANT_LEFT_SINCE_V5)
        :: ph[k] == LEFT && !known[k] -> SET(k, EMPTY, 0, 0)
#else
        :: ph[k] == LEFT && !known[k] && st[k] != 0 -> SET(k, EMPTY, 0, 0)
#endif
        :: else
        fi;
        k++
      :: else -> break
      od;
      k = 0;
      tidy(n)
    };
recovered:
    atomic {
      n = 0;
      if
      :: back == LOOK -> back = 0; goto forget
      :: else -> back = 0; goto looked
      fi
    };

    /* V3 to V5 of a downgrade */
downgrade:
#ifndef MUTANT_DOWNGRADE_V5_FIRST
    atomic { take_storage(); rd[n] = 1; mark = 0; owed = 0 };
#else
    n = 0;
#endif
    d_step { ex[me] = 0; st[me] = n; touch[me] = n; check_held() };
#ifndef MUTANT_DOWNGRADE_V5_FIRST
    d_step { set_gate() };
#endif
    atomic { tidy(n); n = 0; back = 0; goto leave };

    /* U5 to U8 */
upgrade:
    atomic {
      if
#ifndef MUTANT_UPGRADE_UNCHECKED
      :: ANY(HOLDS_AS_WELL) ->
#ifndef MUTANT_UPGRADE_LEFT_RECOVERING
        gr = 0;
#endif
        back = 0; goto leave
#endif
      :: else -> take_storage()
      fi
    };
    atomic { token++; mine[me] = token; close_gaps() };
#ifdef MUTANT_UPGRADE_HELD_FIRST
    d_step { wr[n] = 1; SET(me, HELD, 1, n); touch[me] = n };
#else
    d_step { wr[n] = 1; SET(me, TRYING, 1, n); touch[me] = n }; /* U6 */
#endif
    d_step { set_gate() }; /* U7 */
    atomic { ph[me] = HELD; check_held(); check_mark(); grant_token(); tidy(n); n = 0; back = 0; goto leave }; /* U8 */

    /* S3 to S5 */
steal:
    atomic { take_storage() };
#ifdef MUTANT_STEAL_S4_FIRST
    d_step { set_gate(); n = 0 };
#endif
#ifdef MUTANT_TOKEN_BEFORE_STOLEN
    atomic { token++; mine[me] = token; close_gaps() };
#endif
#ifdef MUTANT_STEAL_HELD_FIRST
    d_step { wr[n] = 1; SET(me, HELD, 1, n); touch[me] = n; check_held() };
#endif
take:
    atomic {
      do
      :: k < NP && (k == me || ph[k] != HELD || known[k]) -> k++
      :: else -> break
      od;
      if
      :: k < NP ->
        assert(abandoned || torn[k] != 1);
        torn[k] = 0; SET(k, STOLEN, ex[k], 0);
#ifndef MUTANT_STOLEN_UNLOCKED
        touch[k] = NONE;
#endif
        k++; goto take
      :: else -> k = 0
      fi
    };
#ifdef MUTANT_TOKEN_STORE
    mine[me] = token;
    atomic { mine[me]++; token = mine[me]; assert(tokens || token >= 2); close_gaps() };
#elif !defined(MUTANT_TOKEN_BEFORE_STOLEN)
    atomic { token++; mine[me] = token; close_gaps() };
#endif
#ifdef MUTANT_S5_BEFORE_S4
    d_step { wr[n] = 1; SET(me, HELD, 1, n); touch[me] = n };
#elif !defined(MUTANT_STEAL_HELD_FIRST)
    d_step { wr[n] = 1; SET(me, TRYING, 1, n); touch[me] = n };
#endif
S4:
    d_step {
#if !defined(LEAVES) && defined(MUTANT_STEAL_S4_FIRST)
      skip
#endif
#ifdef LEAVES
      /* Whose thread ended after S0 was robbed at its end. */
      do :: k < NP -> if :: ph[k] == LEFT && torn[k] == 2 -> torn[k] = 0 :: else fi; k++ :: else -> break od;
      k = 0;
#endif
#ifndef MUTANT_STEAL_S4_FIRST
      set_gate()
#endif
    };
S5:
    atomic {
      ph[me] = HELD; stealing = 0; check_held(); check_mark(); grant_token();
      tidy(n); n = 0; back = 0; goto leave
    }
  } unless { dead[me] };

#ifdef LEAVES
left: /* the thread has ended: the slot is left to a recovery */
  skip;
#endif
  /* killed, or ended: started anew when its slot is nobody's any more */
  d_step { m = 0; k = 0; n = 0; d = 0; why = 0; back = 0; v = 0; j = 0; writer = NONE; live_writer = 0; rebuilt = 0 };
end:
  ph[me] == FREE && latch != me;
  goto start
}

#define KILL(i) \
  :: atomic { \
       kills < KILLS && ph[i] != FREE && !dead[i] -> \
       kills++; dead[i] = 1; touch[i] = NONE; seen[i] = NONE; \
       if :: latch == i -> stealing = 0 :: else fi; \
       if :: ph[i] == HELD && ex[i] -> torn[i] = 1 + stealing :: else fi }

active proctype Killer() {
end:
  do
  KILL(0)
  KILL(1)
#if NP > 2
  KILL(2)
#endif
#if NP > 3
  KILL(3)
#endif
  od
}

init {
  byte i = 0;
  atomic {
    do
    :: i < NP -> touch[i] = NONE; seen[i] = NONE; run P(i); i++
    :: else -> break
    od;
    i = 0
  }
}
