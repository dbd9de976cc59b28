// Makes an API key, asks Latchgate about it, switches it off, and asks again.
//
//	go run . TENANT
//
// It takes LATCHGATE_VERIFY_ADDRESS, LATCHGATE_ADMIN_ADDRESS and LATCHGATE_ADMIN_KEY (or LATCHGATE_ADMIN_KEY_FILE) from the
// environment, as the commands of Latchgate do.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	latchgatev1 "latchgate.example/gen/latchgate/v1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . TENANT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(tenant string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	adminKey, err := adminKey()
	if err != nil {
		return err
	}
	verifyConn, err := dial(cmp.Or(os.Getenv("LATCHGATE_VERIFY_ADDRESS"), "127.0.0.1:50051"))
	if err != nil {
		return err
	}
	defer verifyConn.Close()
	adminConn, err := dial(cmp.Or(os.Getenv("LATCHGATE_ADMIN_ADDRESS"), "127.0.0.1:50052"))
	if err != nil {
		return err
	}
	defer adminConn.Close()
	verifier := latchgatev1.NewVerifyServiceClient(verifyConn)
	admin := latchgatev1.NewAdminServiceClient(adminConn)
	asAdmin := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+adminKey)

	created, err := admin.CreateKey(asAdmin, &latchgatev1.CreateKeyRequest{Key: &latchgatev1.Key{
		TenantId:    tenant,
		DisplayName: "made by the Go example",
		Permissions: []string{"orders.read"},
	}})
	if err != nil {
		return fmt.Errorf("create a key: %w", err)
	}
	// The key string is told this once: hand it to its holder, and keep it out of logs.
	keyString, keyID := created.KeyString, created.Key.KeyId
	fmt.Println("created", keyID)

	if err := ask(ctx, verifier, keyString, "orders.read"); err != nil {
		return err
	}
	if err := ask(ctx, verifier, keyString, "orders.write"); err != nil {
		return err
	}
	if _, err := admin.DisableKey(asAdmin, &latchgatev1.DisableKeyRequest{KeyId: keyID, Reason: "example"}); err != nil {
		return fmt.Errorf("disable the key: %w", err)
	}
	fmt.Println("disabled", keyID)
	// That returned once no replica decides on the state before it.
	return ask(ctx, verifier, keyString, "orders.read")
}

// ask prints whether the key may do what needs the permission. An error means that nobody could tell: treat it as a no.
func ask(ctx context.Context, verifier latchgatev1.VerifyServiceClient, keyString, permission string) error {
	answer, err := verifier.Verify(ctx, &latchgatev1.VerifyRequest{Key: keyString, RequiredPermissions: permission})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if answer.Decision == latchgatev1.Decision_DECISION_ALLOW {
		fmt.Printf("%s: allowed, for tenant %s\n", permission, answer.Identity.TenantId)
	} else {
		fmt.Printf("%s: denied, %s\n", permission, strings.TrimPrefix(answer.DenialReason.String(), "DENIAL_REASON_"))
	}
	return nil
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func adminKey() (string, error) {
	if key := os.Getenv("LATCHGATE_ADMIN_KEY"); key != "" {
		return key, nil
	}
	file := os.Getenv("LATCHGATE_ADMIN_KEY_FILE")
	if file == "" {
		return "", errors.New("set LATCHGATE_ADMIN_KEY or LATCHGATE_ADMIN_KEY_FILE")
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}
