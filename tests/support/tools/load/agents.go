package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

const (
	heartbeat   = 30 * time.Second
	rejoinAfter = time.Second
	backoffMax  = 15 * time.Second
)

var joined atomic.Int64

// agents are those that standard input names, a line `POOL NAME` each, until it ends; whenever the number of those that
// have joined is another one, it is printed. A session ends by itself after -hold.
func agents(arguments []string) error {
	flags := flag.NewFlagSet("agents", flag.ExitOnError)
	target := flags.String("target", "", "HOST:PORT of the broker")
	hold := flags.Duration("hold", 0, "how long a session lasts")
	_ = flags.Parse(arguments)
	go report()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		pool, name, _ := strings.Cut(lines.Text(), " ")
		conn, err := dial(*target)
		if err != nil {
			return err
		}
		go (&agent{pool: pool, name: name, hold: *hold, conn: conn}).run()
	}
	return lines.Err()
}

func report() {
	for said := int64(-1); ; time.Sleep(20 * time.Millisecond) {
		if now := joined.Load(); now != said {
			said = now
			fmt.Println(now)
		}
	}
}

type agent struct {
	pool, name string
	hold       time.Duration
	conn       *grpc.ClientConn
	failures   int
}

// run joins, and joins again: a second after a clean end, later and later after errors.
func (a *agent) run() {
	for {
		if err := a.stream(); errors.Is(err, io.EOF) {
			time.Sleep(rejoinAfter)
			continue
		}
		delay := min(backoffMax, time.Second<<min(a.failures, 10))
		a.failures++
		time.Sleep(time.Duration(float64(delay) * (1 - rand.Float64()/2)))
	}
}

func (a *agent) stream() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	description := grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := a.conn.NewStream(ctx, &description, "/velda.BrokerService/AgentUpdate")
	if err != nil {
		return err
	}
	if err := stream.SendMsg(firstMessage(a.pool, a.name)); err != nil {
		return stream.RecvMsg(new([]byte))
	}
	outbox := make(chan []byte, 4)
	go write(ctx, stream, outbox)
	return a.read(ctx, stream, outbox)
}

func (a *agent) read(ctx context.Context, stream grpc.ClientStream, outbox chan<- []byte) error {
	var body []byte
	if err := stream.RecvMsg(&body); err != nil {
		return err
	}
	joined.Add(1)
	defer joined.Add(-1)
	a.failures = 0
	for {
		if s, found := requested(body); found {
			outbox <- started(s)
			time.AfterFunc(a.hold, func() {
				select {
				case outbox <- completed(s):
				case <-ctx.Done():
				}
			})
		}
		if err := stream.RecvMsg(&body); err != nil {
			return err
		}
	}
}

func write(ctx context.Context, stream grpc.ClientStream, outbox <-chan []byte) {
	quiet := time.NewTimer(heartbeat)
	defer quiet.Stop()
	for {
		var body []byte
		select {
		case body = <-outbox:
		case <-quiet.C:
		case <-ctx.Done():
			return
		}
		if stream.SendMsg(body) != nil {
			return // reading ends too, and says why
		}
		quiet.Reset(heartbeat)
	}
}
