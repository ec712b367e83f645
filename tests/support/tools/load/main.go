// Command load puts load on a broker over the gRPC library of the real agents: `load agents` is thousands of them, each
// with a connection of its own as a pod has, `load calls` is clients. Messages are encoded by hand, so that the load
// costs the machine little beside the server that is measured. `load posts` is clients of HTTPS servers; `load front` is
// a Service before some of them, and `load webhook` the plainest of them.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"agents": agents, "calls": calls, "posts": posts, "front": front, "webhook": webhook,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: load agents|calls|posts|front|webhook [FLAG …]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
