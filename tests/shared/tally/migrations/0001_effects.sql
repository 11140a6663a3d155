-- What the events did, in the order in which they did it. Nothing here forbids an effect to happen twice.
CREATE TABLE effects (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    document_id uuid NOT NULL,
    number int NOT NULL
);
