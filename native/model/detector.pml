/* The detector: who asks which process whether it lives. Turns, not locks.
 *
 * Why it holds. A turn is one CAS of the word {turn, cursor}, and the CAS itself moves the cursor on. So there is
 * nothing to give back and nothing to take over: a winner that dies, stops or is slow leaves its few entries unasked
 * for one round, and the next turn goes on behind them. Whoever ticks, and finds the word as it was at its own last
 * tick, knows that nobody has had a turn since, and takes one. So between two ticks of anybody there is a turn. An
 * answer is about a number, and a number is never used again: what was dead stays dead, and the entry is recovered only
 * if it still has this number.
 *
 * Steps. A process that waits does all of them on each of its ticks; k entries are asked in a turn.
 *    D0  own: the latch is called by our own number, and we are not inside: a foreign hand wrote that. To all others it
 *        looks like somebody who is stopped. Enter it, which takes it for a dead owner's, rebuilds, and leave it
 *    D1  mark: the bit of the process that it waits for := 1, if it is 0
 *    D2  look: load {turn, cursor}. Changed since our last tick: keep the new value, the tick is over. Can not ask (the
 *        descriptor is not ours any more, say): the tick is over, too
 *    D3  turn: b := the number of set bits, at most k - max(1, k / 4). CAS {t, c} -> {t + 1, c + k - b}, and keep that
 *        value. If it fails: keep what was found instead, the tick is over
 *    D4  owner: ask about the owner of the latch, if it has one that is not us. Dead, or the latch is free and DIRTY:
 *        enter it, which rebuilds, and leave it. A process without an entry, or one that has given its entry back, may
 *        have died inside; nobody else finds that, unless somebody happens to want the latch
 *    D5  take: up to b set bits, looked for from c on, around. Each is cleared by fetch_and before D6; if it was clear
 *        by then, somebody else has taken it. After these the entries c to c + k - b - 1, their bits cleared as well
 *    D6  ask: read the number of the entry, and its mark LEFT, without the latch. Our own number is not asked about.
 *        Alive and not LEFT: on with D5
 *    D7  enter the latch. Stalled: set the bit again, so that another turn takes it, and on with D5
 *    D8  recover: if the entry still has this number, and the answer behind the latch is "dead" as well, recover it
 *    D9  LEFT: mark := 0, then treat the slots of this process that say LEFT; leave the latch; on with D5
 * A thread that ends (slots.pml, E1):
 *    E1  its slot := LEFT, one CAS
 *    E3  the mark LEFT of its process := 1. After E1, since D9 takes the mark away before it looks at the slots
 *
 * NP processes attach, tick for ever, leave slots behind (LEFTS times in all) and go (GOES times). They are killed at
 * any step, KILLS times, and come again as newcomers, with a new number, in an entry that is free. They are stopped for
 * ever or for a while outside of the latch (STOPS), or can not ask any more (BLINDS). One that sees and goes on is
 * always left: STOPS + BLINDS < NP.
 *
 * Abstracted, and why that is sound:
 *   memory      is sequentially consistent. The word is one word; the bits are changed by read-modify-writes, and a
 *               stale look at them costs a tick. The mark LEFT and the slots: E3 is release, D9's exchange acquire.
 *   the turn    is not counted: for each process a bit says whether the word is what it has kept. So D2 and D3 are one
 *               step; a CAS that fails says what a look would have said. The number of set bits is looked at in that
 *               step as well: an old one moves the cursor on by more or less, and it moves on by one at least.
 *   the cursor  is taken modulo the number of entries, whatever it contains.
 *   D4          asks about the owner in the same step: who dies between D3 and D4 might as well have died before D3.
 *   the latch   is latch.pml's: one inside; whoever enters after a dead owner finds it DIRTY, and rebuilds. A rebuild
 *               recovers whoever is dead, and treats all slots that say LEFT; it may be given up once (GIVE_UP). Nobody
 *               is stopped inside: then nobody gets in, and D7 says stalled, STALLS times.
 *   D6, D8      read a number and ask about it in one step: a number that dies in between is dead at the next turn.
 *   FORGED      a foreign hand calls a free latch by the number of a process that lives and is not inside, so many
 *               times. Over one that is inside it could do worse: then two are in, and the faults that stay (latch.h)
 *               are what is left.
 *   HINTS       the first answer may be wrong, so many times: it may be that of a pidfd or a start time. The second is
 *               the token's, and true.
 *   attaching   is one step behind the latch: a newcomer takes the first entry that is free, or a dead process's.
 *               Leaving is one, too: the own slots are treated, the entry is given back; the token goes after the
 *               latch.
 *   slots       one LEFT slot a process. What its treatment does is slots.pml's.
 *
 * Claims. alive: nobody alive is recovered. once: nobody is recovered twice. wishes: D1 leads to a question that begins
 * after it, unless whoever took the bit dies. Under weak fairness: in the end no entry of a dead process is left, no
 * slot that says LEFT, no dead owner of the latch, no owner that is not inside, and no rebuild that is due, however many
 * winners died or stopped, whatever bits are set. Not here: how long it takes. That is counted in ticks, and is the simulation's.
 *
 * Switches: NP, ENTRIES, K (1: no bits, the cursor alone), KILLS, STOPS, BLINDS, LEFTS, GOES, STALLS, FORGED, HINTS, GIVE_UP,
 * NO_NEWCOMERS; WISHES (that claim); LIVENESS; MUTANT_x, see mutants.json.
 */
#ifndef NP
#define NP 3
#endif
#ifndef ENTRIES
#define ENTRIES NP
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef BLINDS
#define BLINDS 0
#endif
#ifndef LEFTS
#define LEFTS 0
#endif
#ifndef GOES
#define GOES 0
#endif
#ifndef STALLS
#define STALLS 0
#endif
#ifndef FORGED
#define FORGED 0
#endif
#ifndef HINTS
#define HINTS 0
#endif
#ifndef K
#define K 2          /* entries in a turn, one of them by the cursor at least */
#endif
#define NUMBERS (NP + KILLS + GOES + 1)
#define NONE 255

/* shared: the word, the bits, the entries */
byte cursor = 0;
bit changed[NP];          /* {turn, cursor} is not what this process has kept */
bit wanted[ENTRIES];
byte num[ENTRIES];        /* 0: free */
#if LEFTS > 0
bit mark[ENTRIES];        /* LEFT, of the process */
bit slot[ENTRIES];        /* one of its slots says LEFT */
#define SLOT(e) slot[e]
#define MARK(e) mark[e]
#else
#define SLOT(e) 0
#define MARK(e) 0
#endif
byte latch = 0;           /* the number of who is inside */
bit dirty = 0;            /* a rebuild is due */
bit forged = 0;           /* its owner is not inside: what the checker knows */
byte last = 0;
#ifdef MUTANT_TURN_HELD
bit held = 0;
#endif

bit token[NUMBERS];       /* its byte is locked: the kernel's */
byte number[NP];
bit dead[NP];
bit stopped[NP];
bit blind[NP];

/* What the checker knows. */
bit gone[NUMBERS];        /* recovered, or gone */
#ifdef WISHES
bit wish[ENTRIES];
byte hand[NP];            /* the entry that was taken and not asked about yet, plus 1 */
#endif
byte kills = 0, stops = 0, blinds = 0, lefts = 0, goes = 0, stalls = 0, forges = 0, hints = 0;
#ifdef GIVE_UP
bit gave_up = 0;
#endif

hidden byte alive, once, wishes;

#if NP == 2
#define ANY(f) (f(0) || f(1))
#else
#define ANY(f) (f(0) || f(1) || f(2))
#endif
#if ENTRIES == 2
#define ANY_ENTRY(f) (f(0) || f(1))
#define BITS (wanted[0] + wanted[1])
#elif ENTRIES == 3
#define ANY_ENTRY(f) (f(0) || f(1) || f(2))
#define BITS (wanted[0] + wanted[1] + wanted[2])
#else
#define ANY_ENTRY(f) (f(0) || f(1) || f(2) || f(3))
#define BITS (wanted[0] + wanted[1] + wanted[2] + wanted[3])
#endif
#define DEAD(e) (num[e] != 0 && !token[num[e]])
#define UNTREATED(e) (DEAD(e) || SLOT(e))
#define CLEAN (!ANY_ENTRY(UNTREATED) && !dirty && !forged && (latch == 0 || token[latch]))
#define HAS_E(p) (hand[p] == e + 1)
#define LOST(e) (wish[e] && !wanted[e])

#ifdef WISHES
#define WISH(x) x
#else
#define WISH(x) skip
#endif
inline check_wish() { assert(wishes || !LOST(e) || ANY(HAS_E)) }

inline recover(f) {
  assert(alive || !token[num[f]]);
  assert(once || !gone[num[f]]);
  gone[num[f]] = 1; num[f] = 0;
#if LEFTS > 0
  mark[f] = 0; slot[f] = 0
#endif
}

/* what the latch was entered for */
#define ATTACH 1
#define OWNER 2
#define RECOVER 3
#define GO 4

proctype P(byte me) provided (!stopped[me]) {
  byte mine = NONE, c = 0, b = 0, a = 0, e = 0, x = 0, i = 0, why = 0;
  bit left = 0, is_dead = 0;

start:
  {
    atomic { last++; number[me] = last; token[last] = 1; changed[me] = 1; why = ATTACH };
enter: /* D7 */
    atomic {
      if
      :: latch == 0 -> latch = number[me]
      :: latch != 0 && !token[latch] && !blind[me] -> latch = number[me]; dirty = 1; forged = 0
#if FORGED > 0
      :: latch == number[me] -> dirty = 1; forged = 0
#endif
#if STALLS > 0
      :: latch != 0 && stalls < STALLS && why == RECOVER ->
        stalls++; wanted[e] = 1; x = 0; is_dead = 0; left = 0; e = 0; why = 0; goto take
#endif
      fi;
      if :: !dirty -> goto inside :: else fi
    };
#ifdef GIVE_UP
    atomic { if :: !gave_up -> gave_up = 1; goto leave :: true fi };
#endif
    /* Rebuild: everybody who is dead, then all slots that say LEFT. */
    atomic {
      do
      :: i < ENTRIES -> if :: DEAD(i) -> recover(i) :: else fi; i++
      :: else -> break
      od;
      i = 0
    };
    atomic {
#if LEFTS > 0 && !defined(MUTANT_LEFT_NOT_REBUILT)
      do
      :: i < ENTRIES -> mark[i] = 0; slot[i] = 0; i++
      :: else -> break
      od;
      i = 0;
#endif
      dirty = 0
    };
inside:
    atomic {
      if
      :: why == ATTACH ->
        do
        :: i < ENTRIES && num[i] != 0 && token[num[i]] -> i++
        :: else -> break
        od;
        if :: num[i] != 0 -> recover(i) :: else fi;
        mine = i; num[i] = number[me]; i = 0
      :: why == RECOVER ->
        if
#if defined(MUTANT_NUMBER_NOT_COMPARED)
        :: is_dead && num[e] != 0 && !token[x] -> recover(e); left = 0 /* D8 */
#elif defined(MUTANT_BELIEVED)
        :: is_dead && num[e] == x -> recover(e); left = 0
#elif defined(MUTANT_ASKS_ITSELF)
        :: is_dead && num[e] == x && (!token[x] || x == number[me]) -> recover(e); left = 0
#elif defined(ASK_THE_NEW)
        :: is_dead && num[e] != 0 && num[e] != number[me] && !token[num[e]] -> recover(e); left = 0
#else
        :: is_dead && num[e] == x && !token[x] -> recover(e); left = 0 /* D8 */
#endif
        :: else
        fi;
        is_dead = 0; x = 0
#if GOES > 0
      :: why == GO ->
        gone[number[me]] = 1; num[mine] = 0;
#if LEFTS > 0
        mark[mine] = 0; slot[mine] = 0;
#endif
        mine = NONE
#endif
      :: why == OWNER
      fi
    };
#if LEFTS > 0
    /* D9 */
#ifdef MUTANT_MARK_CLEARED_LATE
    atomic { if :: left -> slot[e] = 0 :: else fi };
    atomic { if :: left -> mark[e] = 0 :: else fi };
#else
    atomic { if :: left -> mark[e] = 0 :: else fi };
    atomic { if :: left -> slot[e] = 0 :: else fi };
#endif
#endif
leave:
    atomic {
      latch = 0; left = 0; e = 0; x = 0; is_dead = 0;
      if
      :: why == ATTACH && mine == NONE -> goto enter /* the rebuild was given up */
      :: why == ATTACH && mine != NONE -> why = 0; goto tick
      :: why == OWNER || why == RECOVER -> why = 0; goto take
      :: why == GO && mine != NONE -> goto enter
      :: why == GO && mine == NONE -> why = 0
      fi
    };
    atomic { token[number[me]] = 0; number[me] = 0; goto start };

tick:
#if FORGED > 0 && !defined(MUTANT_OWN_NUMBER_BELIEVED)
    atomic { /* D0 */
      if :: latch == number[me] -> why = OWNER; goto enter :: else fi
    };
#endif
    atomic { /* D1 */
      if
      :: true -> goto look
#if K > 1 || defined(MUTANT_BITS_TAKE_ALL)
      :: mine != 0 -> e = 0
      :: mine != 1 -> e = 1
#if ENTRIES > 2
      :: mine != 2 -> e = 2
#endif
#if ENTRIES > 3
      :: mine != 3 -> e = 3
#endif
#endif
#if LEFTS > 0
      :: lefts < LEFTS && !slot[mine] -> lefts++; goto ends
#endif
#if GOES > 0
      :: goes < GOES -> goes++; why = GO; goto enter
#endif
      fi;
      WISH(wish[e] = 1); wanted[e] = 1; e = 0
    };
look:
    atomic { /* D2 to D4 */
#ifdef MUTANT_TURN_HELD
      if :: held -> goto tick :: else fi;
#endif
      if
      :: changed[me] -> changed[me] = 0; goto tick
#ifdef MUTANT_BLIND_TAKES_TURNS
      :: !changed[me]
#else
      :: !changed[me] && blind[me] -> goto tick
      :: !changed[me] && !blind[me]
#endif
      fi;
      b = BITS;
#ifdef MUTANT_BITS_TAKE_ALL
      if :: b > K -> b = K :: else fi;
#else
      if :: b > K - 1 -> b = K - 1 :: else fi;
#endif
      a = K - b;
      c = cursor;
#if defined(MUTANT_CURSOR_SKIPS)
      cursor = (c + K) % ENTRIES;
#elif !defined(MUTANT_CURSOR_STAYS)
      cursor = (c + a) % ENTRIES;
#endif
      changed[0] = 1; changed[1] = 1;
#if NP > 2
      changed[2] = 1;
#endif
      changed[me] = 0;
#ifdef MUTANT_TURN_HELD
      held = 1;
#endif
#ifndef MUTANT_OWNER_NOT_ASKED
      if
      :: latch != 0 && !token[latch] && !blind[me] -> why = OWNER; goto enter
      :: latch == 0 && dirty -> why = OWNER; goto enter
      :: else
      fi
#endif
    };
take:
    atomic { /* D5 */
      if
      :: b > 0 ->
        i = 0;
        do
        :: i < ENTRIES && !wanted[(c + i) % ENTRIES] -> i++
        :: else -> break
        od;
        if
        :: i == ENTRIES -> b = 0; i = 0; goto take
        :: else -> e = (c + i) % ENTRIES; b--; i = 0
        fi
      :: b == 0 && a > 0 -> e = c; c = (c + 1) % ENTRIES; a--
      :: b == 0 && a == 0 ->
#ifdef MUTANT_TURN_HELD
        held = 0;
#endif
        c = 0; goto tick
      fi;
#ifndef MUTANT_CLEARED_AFTER_ASKING
      wanted[e] = 0; WISH(hand[me] = e + 1; check_wish())
#endif
    };
    atomic { /* D6 */
      WISH(wish[e] = 0; hand[me] = 0);
      x = num[e];
      left = MARK(e);
#ifdef MUTANT_OWN_NOT_LOOKED_AT
      if :: x == number[me] -> left = 0 :: else fi;
#endif
      is_dead = x != 0 && !token[x] && !blind[me];
#if HINTS > 0
      if :: x != 0 && x != number[me] && hints < HINTS -> hints++; is_dead = 1 :: true fi;
#endif
#ifdef MUTANT_ASKS_ITSELF
      if :: x == number[me] -> is_dead = 1 :: else fi;
#endif
#ifdef MUTANT_CLEARED_AFTER_ASKING
    };
    atomic {
      wanted[e] = 0; WISH(check_wish());
#endif
      if
      :: !is_dead && !left -> x = 0; e = 0; goto take
      :: else -> why = RECOVER; goto enter
      fi
    };

#if LEFTS > 0
ends:
#ifdef MUTANT_MARKED_FIRST
    mark[mine] = 1; /* E3 */
    atomic { slot[mine] = 1; goto look } /* E1 */
#else
    slot[mine] = 1; /* E1 */
    atomic { mark[mine] = 1; goto look } /* E3 */
#endif
#endif
  } unless { dead[me] };
#ifdef NO_NEWCOMERS
end:
  false
#endif
  /* killed: a newcomer comes in its place */
  atomic {
    dead[me] = 0; mine = NONE; c = 0; b = 0; a = 0; e = 0; x = 0; i = 0; why = 0; left = 0; is_dead = 0;
    goto start
  }
}

inline kill(p) {
  kills++; dead[p] = 1; stopped[p] = 0; blind[p] = 0; token[number[p]] = 0; number[p] = 0;
  WISH(if :: hand[p] != 0 -> wish[hand[p] - 1] = 0; hand[p] = 0 :: else fi)
}
inline forge(p) { forges++; forged = 1; latch = number[p] }
#define FATE(p) \
  :: atomic { forges < FORGED && number[p] != 0 && latch == 0 -> forge(p) } \
  :: atomic { kills < KILLS && number[p] != 0 -> kill(p) } \
  :: atomic { stops < STOPS && number[p] != 0 && latch != number[p] -> stops++; stopped[p] = 1 } \
  :: atomic { stopped[p] -> stopped[p] = 0 } \
  :: atomic { blinds < BLINDS && number[p] != 0 -> blinds++; blind[p] = 1 }

proctype Fate() {
end:
  do
  FATE(0)
  FATE(1)
#if NP > 2
  FATE(2)
#endif
  od
}

#ifdef LIVENESS
ltl recovered { <>[] CLEAN }
#endif

init {
  atomic {
    byte p = 0;
    do :: p < NP -> run P(p); p++ :: else -> break od;
    run Fate()
  }
}
