// Makes an API key, asks Latchgate about it, switches it off, and asks again.
//
//   node dist/main.js TENANT
//
// It takes LATCHGATE_VERIFY_ADDRESS, LATCHGATE_ADMIN_ADDRESS and LATCHGATE_ADMIN_KEY (or LATCHGATE_ADMIN_KEY_FILE) from
// the environment, as the commands of Latchgate do.
import { readFileSync } from "node:fs";

import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { AdminService } from "./gen/latchgate/v1/admin_service_pb.js";
import { Decision, DenialReason } from "./gen/latchgate/v1/decision_pb.js";
import { VerifyService } from "./gen/latchgate/v1/verify_service_pb.js";

const TIMEOUT_MS = 10_000;

function transport(address: string) {
  return createGrpcTransport({ baseUrl: `http://${address}`, defaultTimeoutMs: TIMEOUT_MS });
}

function adminKey(): string {
  const { LATCHGATE_ADMIN_KEY: key, LATCHGATE_ADMIN_KEY_FILE: file } = process.env;
  if (key) return key;
  if (file) return readFileSync(file, "ascii").trim();
  throw new Error("set LATCHGATE_ADMIN_KEY or LATCHGATE_ADMIN_KEY_FILE");
}

/** Prints whether the key may do what needs the permission. An error means that nobody could tell: treat it as a no. */
async function ask(verifier: Client<typeof VerifyService>, key: string, permission: string): Promise<void> {
  const answer = await verifier.verify({ key, requiredPermissions: permission });
  if (answer.decision === Decision.ALLOW) {
    console.log(`${permission}: allowed, for tenant ${answer.identity?.tenantId}`);
  } else {
    console.log(`${permission}: denied, ${DenialReason[answer.denialReason]}`);
  }
}

async function main(tenant: string): Promise<void> {
  const verifier = createClient(VerifyService, transport(process.env.LATCHGATE_VERIFY_ADDRESS ?? "127.0.0.1:50051"));
  const admin = createClient(AdminService, transport(process.env.LATCHGATE_ADMIN_ADDRESS ?? "127.0.0.1:50052"));
  const headers = { authorization: `Bearer ${adminKey()}` };

  const created = await admin.createKey(
    { key: { tenantId: tenant, displayName: "made by the TypeScript example", permissions: ["orders.read"] } },
    { headers },
  );
  // The key string is told this once: hand it to its holder, and keep it out of logs.
  const keyString = created.keyString;
  const keyId = created.key!.keyId;
  console.log("created", keyId);

  await ask(verifier, keyString, "orders.read");
  await ask(verifier, keyString, "orders.write");
  await admin.disableKey({ keyId, reason: "example" }, { headers });
  console.log("disabled", keyId);
  // That returned once no replica decides on the state before it.
  await ask(verifier, keyString, "orders.read");
}

const [tenant, ...rest] = process.argv.slice(2);
if (!tenant || rest.length > 0) {
  console.error("usage: node dist/main.js TENANT");
  process.exit(2);
}
try {
  await main(tenant);
  process.exit(0); // without waiting for idle connections
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
