package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const patience = time.Minute

type result struct {
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"` // milliseconds
	P99     float64 `json:"p99"`
	Failed  int     `json:"failed"`
	Error   string  `json:"error"` // the first
}

// caller makes calls until its context ends, and keeps how long each took.
type caller struct {
	ctx   context.Context
	call  func(number int) error
	start time.Time

	mutex  sync.Mutex
	times  []time.Duration
	failed []error
}

// calls makes one call again and again and prints the result. With -rate calls begin at random times, that many a
// second, whether others have come back or not, and each counts from when it was due; else each of -clients waits for its
// answers. A token comes by standard input.
func calls(arguments []string) error {
	flags := flag.NewFlagSet("calls", flag.ExitOnError)
	target := flags.String("target", "", "HOST:PORT")
	method := flags.String("method", "/velda.BrokerService/RequestSession", "what to call")
	pool := flags.String("pool", "", "of the sessions that are requested")
	rate := flags.Float64("rate", 0, "calls a second")
	clients := flags.Int("clients", 1, "calls at once, without -rate")
	connections := flags.Int("connections", 8, "that the calls share")
	seconds := flags.Float64("seconds", 10, "how long")
	_ = flags.Parse(arguments)

	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	background := context.Background()
	if len(token) > 0 {
		background = metadata.AppendToOutgoingContext(background, "authorization", "Bearer "+string(token))
	}
	request := sessionRequest(*pool)
	var conns []*grpc.ClientConn
	call := func(number int) error {
		ctx, cancel := context.WithTimeout(background, patience)
		defer cancel()
		var answer []byte
		return conns[number%len(conns)].Invoke(ctx, *method, request, &answer, grpc.WaitForReady(true))
	}
	for range *connections {
		conn, err := dial(*target)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
		if err := call(len(conns) - 1); err != nil {
			return err // the first call on a connection opens it: that is not measured
		}
	}
	ctx, cancel := context.WithTimeout(background, time.Duration(*seconds*float64(time.Second)))
	defer cancel()
	return (&caller{ctx: ctx, call: call}).run(*rate, *clients)
}

// run prints the result: of calls that begin at random times, rate a second, or else of so many clients.
func (c *caller) run(rate float64, clients int) error {
	c.start = time.Now()
	if rate > 0 {
		c.open(rate)
	} else {
		c.closed(clients)
	}
	return json.NewEncoder(os.Stdout).Encode(c.result())
}

func (c *caller) open(rate float64) {
	var running sync.WaitGroup
	var due time.Duration
	for number := 0; ; number++ {
		due += time.Duration(rand.ExpFloat64() / rate * float64(time.Second))
		select {
		case <-c.ctx.Done():
			running.Wait()
			return
		case <-time.After(due - time.Since(c.start)):
		}
		mine := due
		running.Go(func() { c.timed(number, mine) })
	}
}

func (c *caller) closed(clients int) {
	var running sync.WaitGroup
	var numbers atomic.Int64
	for range clients {
		running.Go(func() {
			for c.ctx.Err() == nil {
				c.timed(int(numbers.Add(1)), time.Since(c.start))
			}
		})
	}
	running.Wait()
}

func (c *caller) timed(number int, due time.Duration) {
	err := c.call(number)
	took := time.Since(c.start) - due
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err != nil {
		c.failed = append(c.failed, err)
		return
	}
	c.times = append(c.times, took)
}

func (c *caller) result() result {
	slices.Sort(c.times)
	share := func(of float64) float64 {
		if len(c.times) == 0 {
			return 0
		}
		return c.times[int(of*float64(len(c.times)-1))].Seconds() * 1000
	}
	done := result{
		Calls: len(c.times), Seconds: time.Since(c.start).Seconds(), P50: share(0.5), P99: share(0.99), Failed: len(c.failed),
	}
	if err := errors.Join(c.failed[:min(1, len(c.failed))]...); err != nil {
		done.Error = err.Error()
	}
	return done
}
