package metadata

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// group is SQLite's one writer. Transactions that wait for it are run one after
// the other inside one transaction of the database, each in a savepoint of its
// own, so that they share the fsync of its commit: with many writers the cost
// of durability is paid once a group, not once each.
type group struct {
	db    *DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	full  bool // the connection's synchronous is FULL
	queue chan *job
	stop  chan struct{}
	done  chan struct{}
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

func newGroup(db *DB) (*group, error) {
	conn, err := db.write.Conn(context.Background())
	if err != nil {
		return nil, fmt.Errorf("open the writing connection: %w", err)
	}
	g := &group{db: db, conn: conn, stmts: map[string]*sql.Stmt{}, full: true,
		queue: make(chan *job, maxGroup), stop: make(chan struct{}), done: make(chan struct{})}
	go g.run()
	return g, nil
}

// close ends the writer after the jobs that it has taken.
func (g *group) close() {
	close(g.stop)
	<-g.done
	for _, s := range g.stmts {
		_ = s.Close()
	}
	_ = g.conn.Close()
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
	case <-g.done:
		select {
		case <-j.done:
			return j.err
		default:
			return errClosed
		}
	}
}

func (g *group) run() {
	defer close(g.done)
	jobs := make([]*job, 0, maxGroup)
	for {
		jobs = jobs[:0]
		select {
		case <-g.stop:
			return
		case j := <-g.queue:
			jobs = append(jobs, j)
		}
	more:
		for len(jobs) < maxGroup {
			select {
			case j := <-g.queue:
				jobs = append(jobs, j)
			default:
				break more
			}
		}
		g.commit(jobs)
	}
}

// commit runs the jobs and tells each how it went.
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
	for _, j := range jobs {
		close(j.done)
	}
}

// transaction runs the jobs in one transaction. What a single job returns is in
// its err; an error is one of the transaction as a whole, which is undone.
func (g *group) transaction(jobs []*job) (err error) {
	ctx := context.Background()
	if err := g.synchronous(ctx, jobs); err != nil {
		return err
	}
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
	tx := &Tx{q: g.conn, prep: g.prepare, now: g.db.now().UnixMicro()}
	if j.err = j.fn(context.WithoutCancel(j.ctx), tx); j.err != nil {
		if err := g.exec(ctx, "ROLLBACK TO job"); err != nil {
			return fmt.Errorf("%w: %w", err, j.err)
		}
	}
	return g.exec(ctx, "RELEASE job")
}

// synchronous sets what the commit waits for: the disk, if any job wants it.
func (g *group) synchronous(ctx context.Context, jobs []*job) error {
	full := false
	for _, j := range jobs {
		full = full || j.d == durable
	}
	if full == g.full {
		return nil
	}
	mode := "NORMAL"
	if full {
		mode = "FULL"
	}
	if err := g.exec(ctx, "PRAGMA synchronous = "+mode); err != nil {
		return err
	}
	g.full = full
	return nil
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
