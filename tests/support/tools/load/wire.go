package main

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// session is what identifies one: fields 1 and 2 of a SessionRequest.
type session struct {
	instance uint64
	id       string
}

func firstMessage(pool, name string) []byte {
	return message(nil, 1, text(text(text(nil, 1, name), 2, name), 3, pool))
}

func started(s session) []byte {
	body := text(number(nil, 1, s.instance), 2, s.id)
	return message(nil, 2, number(number(body, 3, 1), 4, 22))
}

func completed(s session) []byte {
	return message(nil, 3, text(number(nil, 1, s.instance), 2, s.id))
}

func sessionRequest(pool string) []byte {
	return text(number(nil, 2, 1), 4, pool)
}

// requested is the session that an AgentUpdateResponse asks to start, if it does.
func requested(response []byte) (s session, found bool) {
	body := field(response, 1)
	if body == nil {
		return s, false
	}
	for len(body) > 0 {
		num, kind, n := protowire.ConsumeTag(body)
		switch {
		case num == 1 && kind == protowire.BytesType:
			id, _ := protowire.ConsumeBytes(body[n:])
			s.id = string(id)
		case num == 2 && kind == protowire.VarintType:
			s.instance, _ = protowire.ConsumeVarint(body[n:])
		}
		body = body[n+protowire.ConsumeFieldValue(num, kind, body[n:]):]
	}
	return s, true
}

// field is the submessage of that number; nil if there is none.
func field(body []byte, wanted protowire.Number) []byte {
	for len(body) > 0 {
		num, kind, n := protowire.ConsumeTag(body)
		if num == wanted {
			value, _ := protowire.ConsumeBytes(body[n:])
			return value
		}
		body = body[n+protowire.ConsumeFieldValue(num, kind, body[n:]):]
	}
	return nil
}

func message(to []byte, num protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, num, protowire.BytesType), body)
}

func text(to []byte, num protowire.Number, value string) []byte {
	return message(to, num, []byte(value))
}

func number(to []byte, num protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, num, protowire.VarintType), value)
}

// raw passes bytes through as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) {
	body, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("not bytes: %T", v)
	}
	return body, nil
}

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		"passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
		grpc.WithReadBufferSize(4096),
		grpc.WithWriteBufferSize(4096),
		grpc.WithSharedWriteBuffer(true),
	)
}
