// Routes of the table: those that change something with method, path, body, and whether they take an Idempotency-Key.

import { part } from "./api.js";

export const PATHS = {
  promote: (member) => ({ method: "POST", path: `/v1/members/${part(member)}/promote`, once: true }),
  move: (member, group) => ({ method: "PUT", path: `/v1/members/${part(member)}/group`, body: { group } }),
  newGroup: (label) => ({ method: "POST", path: "/v1/groups", body: { label }, once: true }),
  archives: "/v1/backups",
  job: (id) => `/v1/backup-jobs/${id}`,
  backUp: () => ({ method: "POST", path: "/v1/backups", once: true }),
  assign: (client, keyring) => ({ method: "PUT", path: `/v1/clients/${part(client)}/keyrings/${part(keyring)}` }),
  approve: (id) => ({ method: "POST", path: `/v1/approvals/${id}/approve`, once: true }),
  deny: (id) => ({ method: "POST", path: `/v1/approvals/${id}/deny`, once: true }),
};
