package metadata

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/tarport/tarport"
)

// group is SQLite's one writer. Transactions that wait for it are run one after
// the other inside one transaction of the database, each in a savepoint of its
// own. The commit does not wait for the disk (synchronous=NORMAL); those who
// need that wait together for one fsync of the write-ahead log, while the next
// group is already being written:
//
//	jobs ──> run: BEGIN, SAVEPOINT each, COMMIT ──> relaxed jobs return
//	                                           └──> sync: fsync of the log ──> durable jobs return
//
// SQLite replays the log up to its last whole commit, so what is durable is
// always all transactions up to some point: nothing that a durable transaction
// saw can be lost without it. SQLite itself syncs the log before it copies any
// of it into the database.
type group struct {
	db    *DB
	conn  *sql.Conn
	log   *os.File // the write-ahead log
	stmts map[string]*sql.Stmt
	queue chan *job
	stop  chan struct{}
	once  sync.Once     // of close
	over  chan struct{} // closed when all that was taken is answered
	wg    sync.WaitGroup

	mu     sync.Mutex
	wake   *sync.Cond
	unsync []*job // committed, waiting for the fsync
	ended  bool   // run has ended
	failed error  // an fsync failed: what the disk has is not known any more
}

// Most jobs that share a commit; it bounds how long the first one waits.
const maxGroup = 64

var errClosed = errors.New("the database is closed")

type job struct {
	ctx  context.Context //nolint:containedctx // the job is the call's argument list, and lives as long
	d    durability
	fn   func(context.Context, *Tx) error
	err  error
	done chan struct{}
}

// newGroup takes the writing connection. The log is there: the migrations have
// written to it.
func newGroup(db *DB, path string) (*group, error) {
	log, err := os.OpenFile(path+"-wal", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database's log: %w", err)
	}
	conn, err := db.write.Conn(context.Background())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the writing connection: %w", err), log.Close())
	}
	g := &group{
		db: db, conn: conn, log: log, stmts: map[string]*sql.Stmt{},
		queue: make(chan *job, maxGroup), stop: make(chan struct{}), over: make(chan struct{}),
	}
	g.wake = sync.NewCond(&g.mu)
	g.wg.Go(g.run)
	g.wg.Go(g.sync)
	return g, nil
}

// close ends the writer after the jobs that it has taken.
func (g *group) close() {
	g.once.Do(func() {
		close(g.stop)
		g.wg.Wait()
		close(g.over)
		for _, s := range g.stmts {
			_ = s.Close()
		}
		_ = g.conn.Close()
		_ = g.log.Close()
	})
}

// do runs fn in a transaction and waits for it. A caller whose context ends
// while its job waits for its turn gets the context's error and fn does not
// run; once it runs it is finished, because SQLite answers an interrupted
// statement by undoing the whole transaction, the neighbours' work included.
func (g *group) do(ctx context.Context, d durability, fn func(context.Context, *Tx) error) error {
	j := &job{ctx: ctx, d: d, fn: fn, done: make(chan struct{})}
	select {
	case g.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.stop:
		return errClosed
	}
	select {
	case <-j.done:
		return j.err
	case <-g.over: // it came too late, unless it is answered
	}
	select {
	case <-j.done:
		return j.err
	default:
		return errClosed
	}
}

func (g *group) run() {
	defer g.end()
	for {
		select {
		case <-g.stop:
			return
		case j := <-g.queue:
			g.commit(g.more(j))
		}
	}
}

// more is a group: the job, and those that wait behind it.
func (g *group) more(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < maxGroup {
		select {
		case j := <-g.queue:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// end lets sync end.
func (g *group) end() {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.wake.Broadcast()
}

// commit runs the jobs, and answers those that need not wait for the disk.
func (g *group) commit(jobs []*job) {
	if err := g.transaction(jobs); err != nil {
		// Which of them broke it is not known; alone, each gets its own answer.
		for _, j := range jobs {
			j.err = nil
			if len(jobs) == 1 {
				j.err = err
			} else if err := g.transaction([]*job{j}); err != nil {
				j.err = err
			}
		}
	}
	var wait []*job
	for _, j := range jobs {
		if j.err == nil && j.d == durable {
			wait = append(wait, j)
		} else {
			close(j.done)
		}
	}
	if len(wait) > 0 {
		g.mu.Lock()
		g.unsync = append(g.unsync, wait...)
		g.mu.Unlock()
		g.wake.Signal()
	}
}

// sync makes durable what was committed, for as many jobs at once as wait.
func (g *group) sync() {
	for {
		g.mu.Lock()
		for len(g.unsync) == 0 && !g.ended {
			g.wake.Wait()
		}
		jobs := g.unsync
		g.unsync = nil
		err := g.failed
		g.mu.Unlock()
		if len(jobs) == 0 {
			return
		}
		if err == nil {
			if err = syncData(g.log); err != nil {
				err = tarport.Errorf(tarport.Unavailable, "the registry's database cannot be written, it must be restarted").Because(
					fmt.Errorf("sync the database's log: %w", err))
				g.mu.Lock()
				g.failed = err
				g.mu.Unlock()
			}
		}
		for _, j := range jobs {
			j.err = err
			close(j.done)
		}
	}
}

// transaction runs the jobs in one transaction. What a single job returns is in
// its err; an error is one of the transaction as a whole, which is undone.
func (g *group) transaction(jobs []*job) (err error) {
	g.mu.Lock()
	failed := g.failed
	g.mu.Unlock()
	if failed != nil {
		return failed
	}
	ctx := context.Background()
	if err := g.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			_ = g.exec(ctx, "ROLLBACK") // fails where SQLite has undone it already
		}
	}()
	for _, j := range jobs {
		if err := g.savepoint(ctx, j); err != nil {
			return err
		}
	}
	if err := g.exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (g *group) savepoint(ctx context.Context, j *job) error {
	if j.err = j.ctx.Err(); j.err != nil {
		return nil
	}
	if err := g.exec(ctx, "SAVEPOINT job"); err != nil {
		return err
	}
	tx := &Tx{db: g.db, q: g.conn, prep: g.prepare, now: g.db.now().UnixMicro()}
	if j.err = j.fn(context.WithoutCancel(j.ctx), tx); j.err != nil {
		if err := g.exec(ctx, "ROLLBACK TO job"); err != nil {
			return fmt.Errorf("%w: %w", err, j.err)
		}
	}
	return g.exec(ctx, "RELEASE job")
}

func (g *group) exec(ctx context.Context, query string) error {
	s, err := g.prepare(ctx, query)
	if err == nil {
		_, err = s.ExecContext(ctx)
	}
	return classify(err)
}

func (g *group) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := g.stmts[query]; ok {
		return s, nil
	}
	s, err := g.conn.PrepareContext(ctx, query)
	if err == nil {
		g.stmts[query] = s
	}
	return s, err
}
